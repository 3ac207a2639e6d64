"""Whether a question is about the one who asks, or about the time of asking: then its answer is not for everyone.

Patterns over English; they err towards yes. Linear in the length, and only the first LONGEST characters count.
"""

import re

LONGEST = 20_000

_THINGS = (
    "account|accounts|address|answer|appointment|balance|bank|benefits|bill|bills|billing|booking|bookings|budget|calendar|call|calls|card"
    "|cart|case|chat|claim|code|company|contract|contracts|credit|customer|customers|data|deal|delivery|deposit|device|document|documents"
    "|email|emails|employees|employer|expenses|file|files|flight|history|holiday|id|inbox|insurance|invoice|invoices|item|items|job|key"
    "|landlord|last|lease|library|license|licence|limit|line|list|loan|location|login|luggage|manager|meeting|meetings|message|messages|money"
    "|mortgage|name|next|notes|number|order|orders|package|parcel|passport|password|payment|payments|payslip|pension|phone|photos|plan"
    "|points|policy|portfolio|prescription|profile|project|projects|purchase|purchases|quota|receipt|records|refund|rent|repo"
    "|repository|request|reservation|results|return|rewards|salary|schedule|score|server|shipment|statement|status|subscription|tasks|tax"
    "|taxes|team|ticket|tickets|transaction|transactions|transfer|trial|trip|usage|username|visa|wallet|warranty|website"
)
_POSSESSION = re.compile(
    rf"\b(?:my|our|mine|ours)(?:\s+[\w'-]{{1,30}}){{0,3}}?\s+(?:{_THINGS})\b"
    r"|\bmy\s+(?:wife|husband|partner|son|daughter|child|kid|mother|father|doctor|boss|dog|cat|symptoms|pain|age|weight|height)\b",
    re.IGNORECASE,
)
_SOMEBODY = re.compile(r"\b(?:i|we|my|our|mine|ours|(?:remind|call|email|text|book|order)\s+me)\b|[\d@]", re.IGNORECASE)
"""What every text has that one of the patterns for somebody's own affairs matches: looked for first, because that is
quicker."""
_INSTRUCTIONS = re.compile(
    r"^\W*(?:(?:hi|hey|hello|please|can you tell me|could you tell me|tell me)\b\W*)*"
    r"(?:how\s+(?:do|can|could|should|would|may|to)\b"
    r"|what\s+(?:are|is)\s+the\s+(?:steps|way|best\s+way|easiest\s+way)|where\s+(?:do|can)\s+(?:i|we)\b"
    r"|is\s+(?:it\s+possible|there\s+(?:a|any)\s+way)|what\s+(?:happens|should\s+i\s+do)\s+(?:if|when))",
    re.IGNORECASE,
)
"""Openings of questions whose answer is the same for everyone, such as "How do I change my password?"."""
_STATEMENT = re.compile(
    r"\b(?:i|we)(?:\s+(?:was|were|am|are|have|has|had|got|get|keep|just|already|only|never|did|do|not|didn't|haven't|been)|'ve|'m|'re|'d){1,3}"
    r"\s+(?:been\s+)?(?:charged|billed|double|overcharged|ordered|bought|paid|sent|received|subscribed|enrolled|entitled|eligible"
    r"|registered|booked|promised|told|owe|owed|due|cancelled|canceled|returned|locked|banned|hired|fired|approved|denied|declined)\b"
    r"|\b(?:i|we)\s+(?:ordered|bought|paid|sent|received|subscribed|booked|owe|earn|returned|cancelled|canceled|live|work|signed)\b"
    r"|\b(?:do|does|did|have|has|am|are|was|were|will|can)\s+(?:i|we)\s+(?:have(?!\s+to\b)|owe|qualify|still|already|get\s+(?:a\s+)?(?:refund|bonus)|been)\b"
    r"|\bam\s+i\b(?!\s+(?:allowed|able|permitted|obliged))|\bare\s+we\b|\bwhere\s+(?:is|are)\s+(?:my|our)\b|\bwho\s+am\s+i\b|\bwhat(?:'s|\s+is)\s+(?:my|our)\b|\b(?:remind|call|email|text|book|order)\s+me\b"
    r"|\b(?:order|invoice|ticket|booking|tracking|case|account|reference|customer)\s*(?:no\.?|number|id|#)?\s*[#:]?\s*[a-z]{0,4}-?\d{3,}"
    r"|(?<![\w.+-])[\w.+-]{1,64}@[\w-]+\.\w|\b(?:\+?\d[\d ()-]{8,16}\d)\b|\b[a-z]{2}\d{2}(?: ?[a-z0-9]{4}){3,7}\b",
    re.IGNORECASE,
)
_PRESENT = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|now|nowadays|currently|current|latest|newest|recent|recently|upcoming|presently|live\s+score"
    r"|breaking|so\s+far|as\s+of|at\s+the\s+moment|these\s+days|right\s+away|up\s+to\s+date|up-to-date|to\s+date|trending|ongoing"
    r"|forecast|ago|anymore|any\s+more|still|yet|already|soon|open\s+now|what\s+time\s+is\s+it|what(?:'s|\s+is)\s+the\s+(?:time|date))\b(?!\s+how\b)"
    r"|\b(?:this|next|last|past|coming|previous)\s+(?:few\s+)?(?:second|minute|hour|day|night|morning|afternoon|evening|week|weekend|month|quarter|season"
    r"|year|spring|summer|autumn|fall|winter|mon|tues|wednes|thurs|fri|satur|sun|time|game|match|election)\w*\b"
    r"|\bin\s+(?:\d+|a|an|one|two|three|a\s+few)\s+(?:minute|hour|day|week|month|year)s?\b"
    r"|\b(?:weather|exchange\s+rate|stock\s+price|share\s+price|price\s+of\s+(?:bitcoin|gold|oil|ethereum)|traffic|in\s+stock|news|score)\b"
    r"|\bwho\s+is\s+the\s+(?:\w+\s+){0,3}(?:president|prime\s+minister|ceo|chancellor|king|queen|pope|mayor|champion)\b",
    re.IGNORECASE,
)


def is_personal(text: str) -> bool:
    """ "Where is my order?", "I was charged twice", a number of an order in it: the answer belongs to the one who asks.
    A question that is too long to be sure of counts as personal."""
    if len(text) > LONGEST:
        return True
    if not _SOMEBODY.search(text):
        return False
    if _STATEMENT.search(text):
        return True
    return bool(_POSSESSION.search(text)) and not _INSTRUCTIONS.match(text)


def is_time_relative(text: str) -> bool:
    """ "today", "the latest release", "the current price", "the weather": the answer will not be true for long. A
    question that is too long to be sure of counts as such."""
    return len(text) > LONGEST or bool(_PRESENT.search(text))

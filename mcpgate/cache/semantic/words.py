"""Words of a question in a form in which different spellings of the same word are equal. English."""

import functools
import re
import unicodedata

_CONTRACTIONS = (
    (re.compile(r"\b(ca)n['’]?t\b"), "can not"),
    (re.compile(r"\bwon['’]t\b"), "will not"),
    (re.compile(r"\bshan['’]t\b"), "shall not"),
    (re.compile(r"\bcannot\b"), "can not"),
    (re.compile(r"\b(do|does|did|is|are|was|were|has|have|had|would|could|should|must|need)n['’]?t\b"), r"\1 not"),
    (re.compile(r"\b(what|who|where|when|how|why|it|that|there|here)['’]s\b"), r"\1 is"),
    (re.compile(r"\b(what|who|where|how)['’]re\b"), r"\1 are"),
    (re.compile(r"\bwhats\b"), "what is"),
    (re.compile(r"\bi['’]d like\b"), "i would like"),
    (re.compile(r"\b(i|you|we|they)['’](m|ve|re|ll|d)\b"), r"\1"),
    (re.compile(r"['’]s\b"), ""),
)
_COURTESY = re.compile(
    r"^\W*(?:(?:hi|hey|hello|good (?:morning|afternoon|evening)|dear \w+|thanks|thank you|ok|okay|so|and|well"
    r"|quick question|i have a question|question|please|pls|kindly|excuse me|sorry)\b[\s,.!:;-]*)+"
    r"|[\s,.!;]*\b(?:please|pls|plz|thanks|thank you|thx|cheers)\b[\s,.!]*(?=[?.!]*\s*$)"
)
_REQUEST = re.compile(
    r"^\W*(?:(?:can|could|would|will) (?:you|someone|anyone|anybody|somebody) (?:please )?(?:tell me|explain(?: to me)?"
    r"|help me(?: understand)?|let me know|show me)|(?:please )?(?:tell me|let me know|help me understand|show me)"
    r"|i (?:would like|want|need) to (?:know|understand|find out)|i (?:was|am) wondering|do you know|any idea)\s+"
    r"(?=(?:what|which|who|whom|whose|when|where|why|how|if|whether)\b)"
)
_HALF_OF_DAY = re.compile(r"(?<=\d)\s?([ap])\.?m\b\.?")
_JOINED = ((re.compile(r"\bwi-fi\b"), "wifi"), (re.compile(r"\be-mail"), "email"), (re.compile(r"\bnon-(?=\w)"), "non"))
_WORD = re.compile(r"[^\W_]+(?:[#+]+(?!\w))?|[$€£¥₹%]")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}\b)")
_NUMBERS = dict(
    zip(
        "zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
        " eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion"
        " dozen".split(),
        [0, *range(2, 20), *range(20, 100, 10), 100, 1000, 10**6, 10**9, 12],
        strict=True,
    )
)
_ORDINALS = dict(zip("second third fourth fifth sixth seventh eighth ninth tenth".split(), range(2, 11), strict=True))
_ROMAN = {"ii": 2, "iii": 3, "iv": 4, "vi": 6, "vii": 7, "viii": 8, "ix": 9}
_SPELLING = {
    "centre": "center", "metre": "meter", "litre": "liter", "kilometre": "kilometer", "centimetre": "centimeter",
    "millimetre": "millimeter", "theatre": "theater", "grey": "gray", "tyre": "tire", "licence": "license",
    "cheque": "check", "programme": "program", "catalogue": "catalog", "defence": "defense", "aluminium": "aluminum",
    "jewellery": "jewelry", "travelling": "traveling", "cancelled": "canceled", "cancelling": "canceling",
    "judgement": "judgment", "anaemia": "anemia", "sulphate": "sulfate", "sulphur": "sulfur", "recieve": "receive",
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "mice": "mouse",
    "bought": "buy", "sold": "sell", "lost": "lose", "won": "win", "sent": "send", "paid": "pay", "went": "go",
    "gone": "go", "done": "do", "did": "do", "does": "do", "doing": "do", "made": "make", "taken": "take",
    "took": "take", "gave": "give", "given": "give", "built": "build", "left": "left", "fell": "fall",
    "rose": "rose", "lent": "lend", "wrote": "write", "written": "write", "began": "begin", "begun": "begin",
    "broke": "break", "broken": "break", "stolen": "steal", "stole": "steal", "knew": "know", "known": "know",
    "grew": "grow", "grown": "grow", "ate": "eat", "eaten": "eat", "got": "get", "is": "be", "are": "be", "was": "be",
    "were": "be", "been": "be", "am": "be", "being": "be", "has": "have", "had": "have", "having": "have",
}  # fmt: skip


def plain(text: str) -> str:
    """Lower case, one form of each character, contractions written out, courtesies left out."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    for pattern, written in (*_JOINED, *_CONTRACTIONS):
        text = pattern.sub(written, text)
    text = _HALF_OF_DAY.sub(r" \1 m", text)
    text = _COURTESY.sub(" ", text)
    return _REQUEST.sub(" ", text).strip()


def words(text: str) -> list[str]:
    """The words of a `plain` text in order, numbers in digits and British spellings in American ones."""
    return [spelled(word) for word in _WORD.findall(_GROUPED.sub("", text))]


@functools.lru_cache(20_000)
def spelled(word: str) -> str:
    """A word in the form in which `words` gives it."""
    if word in _NUMBERS:
        return str(_NUMBERS[word])
    if word in _ORDINALS:
        return f"{_ORDINALS[word]}th"
    if word in _ROMAN:
        return str(_ROMAN[word])
    if word in _SPELLING:
        return _SPELLING[word]
    if word.endswith("s") and word[:-1] in _SPELLING:
        return _SPELLING[word[:-1]] + "s"
    if len(word) > 5 and word.endswith(("our", "ours")):
        return word.replace("our", "or")
    return word.replace("isation", "ization") if "isation" in word else word


@functools.lru_cache(20_000)
def lemma(word: str) -> str:
    """A key that the forms of a word share. Not always a word."""
    word = _SPELLING.get(word, word)
    if not word.isalpha() or not word.isascii() or len(word) < 4:
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        stem = word[: -len(ending)]
        if word.endswith(ending) and len(stem) > 2 and any(letter in "aeiouy" for letter in stem):
            word = stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "ls" else stem
            break
    if word.endswith(("ise", "yse")) and len(word) > 5:
        word = word[:-2] + "ze"
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


_COMMON = (
    "a an the be do have will would shall can could may might should must i me my mine we us our you your he him"
    " his she her it its they them their this that these those there here to of in on at for with by from as and"
    " or but if so than then into about any some just very really please what which who whom whose when where why"
    " how get go make one ones way ways thing things someone somebody anyone person mean use up out also too"
)
STOP = frozenset(map(lemma, _COMMON.split()))
"""Lemmas that say little by themselves."""

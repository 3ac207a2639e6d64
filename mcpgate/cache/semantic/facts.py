"""What a question says that a vector of it does not keep: numbers, names, negations, what is asked, in which direction.

Facts are read with patterns and word lists, in time linear in the length. They know English; of other languages they
know numbers, code, quotations and the script.
"""

import functools
import re
import unicodedata
from dataclasses import dataclass

from mcpgate.cache.semantic.tables import tables
from mcpgate.cache.semantic.words import STOP, lemma, plain, spelled, words

LONGEST = 600
"""Characters of a question that is compared with others. A longer one has no facts, and is never a semantic hit."""

_QUOTED = re.compile(
    r'"([^"\n]{1,300})"|“([^”\n]{1,300})”|«([^»\n]{1,300})»|`+([^`]{1,300})`+|(?<!\w)[\'‘]([^\'’\n]{1,300})[\'’](?!\w)'
)
_NUMBER = re.compile(
    r"(?<![\w.])[-−]?\d+(?:[.,:]\d+)*(?:st|nd|rd|th)?(?![\w])|(?<=[a-z])\d+|\d+(?=[a-z%°])", re.IGNORECASE
)
_CODE = re.compile(r"[_\\<>{}\[\]()@#=+*~^|&;]|::|--|//|\.\w|/\w|\w[/]|^-\w|\d[A-Za-z]|[A-Za-z]\d|^[.$]\w")
_CAMEL = re.compile(r"[a-z][A-Z]")
_OPERATORS = re.compile(r"(?<![\w\-+*/=<>!&|^%])[\-+*/=<>!&|^%]{1,3}(?![\w\-+*/=<>!&|^%])")
_NEGATIONS = frozenset(
    "not no never without none neither nor nothing nobody nowhere hardly unable lack lacking fail refuse cant dont"
    " doesnt didnt isnt arent wasnt wont wouldnt shouldnt couldnt havent hasnt aint".split()
)
_WORD_PREFIX = re.compile(r"^(?:non)(?=[a-z]{4})")
_MUST = re.compile(
    r"\b(?:must|ha(?:ve|s) to|needs? to|obliged|obligated|required?|requires|mandatory|compulsory|necessary)\b"
    r"|^(?:do|does) \w+ need\b"
)
_SHOULD = re.compile(r"\b(?:should|ought|recommended|advisable|had better)\b")
_MAY = re.compile(
    r"\b(?:allowed|permitted|permissible|able to|legal|optional)\b|^(?:can|could|may|might)\b|^is it possible\b"
)
_QUESTION_MARKS = re.compile(r"(?<=\w.)[?？]+|(?<=\w)[?？]+")
_AND_MORE = re.compile(r"\band (?:what|how|why|where|when|who|which|whether|their|its)\b")
_WANT = re.compile(r"\bwant\b")
_WILL = re.compile(r"^(?:will|would)\b")
_YES_NO = re.compile(
    r"^(?:is|are|was|were|am|do|does|did|can|could|may|might|must|should|shall|will|would|has|have|had)\b(?! me\b)"
)
_LIKE_HOW = re.compile(
    r"^(?:can|could) (?:i|you|we|one)\b|^is (?:it possible|there (?:a|any) way)\b|^are there (?:any )?ways\b"
)
_ASKS = tuple(
    (name, re.compile(pattern))
    for name, pattern in {
        "how many": r"\bhow many\b|\bnumber of\b|\bpopulation of\b|\bpeople live in\b",
        "how much": r"\bhow much\b|\bwhat (?:amount|quantity)\b",
        "how long": r"\bhow long\b|\bfor how many\b",
        "how often": r"\bhow (?:often|frequently)\b",
        "how old": r"\bhow old\b|\b(?:at )?what age\b|\bage of\b",
        "how far": r"\bhow far\b|\bdistance\b",
        "how large": r"\bhow (?:large|big|tall|high|wide|deep|heavy|fast|hot|cold)\b"
        r"|\b(?:size|height|width|depth|weight|speed) of\b",
        "why": r"\bwhy\b|\breasons?\b|\bwhat (?:makes|made|causes|caused)\b|\bhow come\b|\bwhat for\b",
        "when": r"\bwhen\b|\b(?:what|which|best|good|right) (?:time|year|date|day|month)\b"
        r"|\bwhat['’]s the time\b|\bdeadline\b",
        "where": r"\bwhere\b|\b(?:what|which) (?:place|places|country|city|location)\b|\bbest places?\b",
        "who": r"\bwho(?:m|se)?\b|\b(?:what|which) person\b|\bauthor of\b",
        "how": r"\bhow\b|\b(?:best |good |easiest |any )?ways? (?:to|of|for)\b|\bsteps\b"
        r"|\bwhat (?:can|should|do|must) (?:i|you|we|one)\b.{0,15}\bdo\b|\bin what way\b",
        "what": r"\bwhat\b|\bwhich\b|\bdefine\b|\bdefinition\b|\bmeaning\b",
    }.items()
)
EXACT_ASKS = frozenset(
    {
        "why",
        "when",
        "where",
        "who",
        "how many",
        "how much",
        "how long",
        "how often",
        "how old",
        "how far",
        "how large",
        "how",
    }
)
"""Things asked for of which two questions must ask for the same. "what" may ask for any of them."""
_MARKERS = {
    "from": "from", "to": "to", "into": "to", "onto": "to", "than": "than", "before": "before", "after": "after",
    "by": "by", "over": "over", "versus": "versus", "against": "against", "without": "without", "instead": "instead",
}  # fmt: skip
_PREPOSITIONS = frozenset(
    "in on at as for with from to by of using via during under inside within when while if".split()
)
_SENTENCE_START = re.compile(r"(?:^|[.!?:;\n]\s*|[\"'“‘(*-]\s*)$")
_NAME_WORD = re.compile(r"[^\W\d_][\w'’&+#-]*")
_NOT_NAMES = frozenset("i i'm i've i'd i'll a ok pls please the".split())
_LETTER = re.compile(r"(?<![\w'’.-])[A-Z](?![\w'’.-]|\s*[.)])")
_UNKNOWN_DATE = re.compile(r"(?<=\w )\b(May|March|Fall)\b")
_LANGUAGES = {
    "de": "der die das und ist nicht ich wie was ein eine mein kann mit für auf wo sie haben warum wann bitte zu den",
    "fr": "le la les des est je une un et où quel quelle comment pourquoi dans pour mon ma votre vous que avec",
    "es": "el la los las es un una y cómo como qué cuál cuándo dónde por para mi su con puedo horario está de",
    "it": "il lo gli è un una e come che quando dove perché per mio con posso sono della di",
    "pt": "o os as é um uma e como que quando onde porque para meu minha com posso não do da",
    "nl": "de het een en is niet ik hoe wat waar wanneer waarom mijn kan met voor uw dank u",
    "pl": "jest nie jak co gdzie kiedy dlaczego moje mogę z w na do czy się",
    "sv": "och är inte jag hur vad var när varför min kan med för på det att",
}
_ENGLISH = frozenset(
    "the a an is are do does i you my your how what where when why who which can of to in on for with and or not be it"
    " me there have has about please if should that this will would as at by from".split()
)
_FOREIGN = {name: frozenset(listed.split()) for name, listed in _LANGUAGES.items()}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read. Two questions with the same answer agree in all of it; guard.py says how."""

    plain: str
    words: tuple[str, ...]
    lemmas: tuple[str, ...]
    content: tuple[str, ...]
    """Lemmas that say something, in order."""
    language: str
    """Script, and for the Latin one a guess: "latin en", "latin de", "han"."""
    numbers: tuple[str, ...]
    """Sorted."""
    codes: frozenset[str]
    quoted: tuple[str, ...]
    """Sorted; in words as `plain` gives them, code as it stands."""
    names: frozenset[str]
    letters: frozenset[str]
    negations: int
    modality: frozenset[str]
    yes_no: bool
    parts: int
    """How many things are asked: question marks, and what "and how", "and their" add."""
    asks: str
    """The first thing that is asked for: "when", "how many", "what", or nothing."""
    groups: dict[int, frozenset[str]]
    marked: frozenset[tuple[str, str]]
    """Markers of direction, each with the word that it governs: ("from", "berlin")."""
    fronted: frozenset[str]
    """Words after a preposition: what follows them may stand elsewhere in the sentence."""

    @property
    def english(self) -> bool:
        return self.language == "latin en"


def read(text: str) -> Facts | None:
    """None where the text is empty or too long to be compared."""
    if not text or len(text) > LONGEST or not text.strip():
        return None
    text = unicodedata.normalize("NFKC", text)[: 2 * LONGEST].strip()
    low = plain(text)
    found = tuple(words(low))
    lemmas = tuple(map(lemma, found))
    return Facts(
        plain=low,
        words=found,
        lemmas=lemmas,
        content=tuple(word for word in lemmas if word not in STOP),
        language=_language(text, low),
        numbers=_numbers(low, found),
        codes=_codes(text),
        quoted=_quoted(text),
        names=_names(text),
        letters=frozenset(_LETTER.findall(text)) - {"I", "A"} | _grades(text),
        negations=sum(word in _NEGATIONS or bool(_WORD_PREFIX.match(word)) for word in found),
        modality=_modality(low),
        yes_no=bool(_YES_NO.match(low)),
        parts=max(1, len(_QUESTION_MARKS.findall(text))) + len(_AND_MORE.findall(low)),
        asks=_asks(low),
        groups=tables().groups(list(lemmas)),
        marked=_marked(lemmas),
        fronted=_after_prepositions(lemmas),
    )


def _language(text: str, low: str) -> str:
    counts: dict[str, int] = {}
    for char in text:
        if char.isalpha():
            script = "latin" if char < "ɐ" else _script(char)
            counts[script] = counts.get(script, 0) + 1
    script = max(sorted(counts), key=lambda name: counts[name], default="none")
    if script != "latin":
        return script
    own = re.findall(r"[^\W\d_]+", low)
    english = sum(word in _ENGLISH for word in own)
    foreign, name = max((sum(word in listed for word in own), name) for name, listed in _FOREIGN.items())
    accents = sum(char.isalpha() and not char.isascii() for char in low)
    if foreign > english or (accents and not english and foreign):
        return f"latin {name}"
    return "latin en"


@functools.lru_cache(4096)
def _script(char: str) -> str:
    return unicodedata.name(char, "none").split()[0].lower()


def _numbers(low: str, found: tuple[str, ...]) -> tuple[str, ...]:
    written = [_NORMAL.sub("", number) for number in _NUMBER.findall(low)]
    spelled = [word.removesuffix("th") for word in found if word[0].isdigit() and not word.isalpha()]
    spelled = [
        word for word in spelled if word.isdigit() and word not in written and not any(word in part for part in written)
    ]
    return tuple(sorted(part.lstrip("-−") if part.lstrip("-−") else part for part in [*written, *spelled]))


_NORMAL = re.compile(r"(?<=\d),(?=\d{3})|(?:st|nd|rd|th)$|(?<=\.\d)0+$")


def _codes(text: str) -> frozenset[str]:
    symbols = frozenset(char for char in text if not char.isascii() and unicodedata.category(char) == "So")
    codes = {
        operator
        for operator in _OPERATORS.findall(text)
        if operator not in {"-", "--", "&", "/", "!", "%", "!!", "!!!"}
    }
    for chunk in text.split():
        chunk = chunk.strip("\"'“”‘’`,;:!?").rstrip(".")
        bare = chunk.strip("()[]{}*&")
        if _CAMEL.search(bare) or (bare and _CODE.search(chunk if "()" in chunk else bare)):
            codes.add(chunk if "()" in chunk else bare)
    return symbols | frozenset(
        code
        for code in codes
        if not re.fullmatch(r"[\d.,:]+(?:st|nd|rd|th|am|pm)?|[A-Z]\.[A-Z]\.?|[a-z]+/[a-z]+|\w+\(s\)?", code)
    )


def _quoted(text: str) -> tuple[str, ...]:
    found = []
    for match in _QUOTED.finditer(text):
        code = match.group(4)
        own = code or next(part for part in match.groups() if part)
        found.append(" ".join(own.split()) if code else " ".join(words(own.lower())))
    return tuple(sorted(part for part in found if part))


def _names(text: str) -> frozenset[str]:
    """Words written as names, unless the whole text is in capitals, and words in other scripts than the Latin one."""
    if text.isupper():
        return frozenset()
    found = set()
    for match in _NAME_WORD.finditer(text):
        word = match.group()
        if not word.isascii() and any(char > "\u024f" and char.isalpha() for char in word):
            found.add(word.lower())
        elif len(word) > 1 and (word[0].isupper() or _CAMEL.search(word)):
            starts = _SENTENCE_START.search(text[max(0, match.start() - 4) : match.start()])
            if not starts or word.isupper() or _CAMEL.search(word):
                low = word.lower().replace("’", "'").removesuffix("'s")
                if word.isupper() or lemma(low) not in STOP:
                    found.add(low)
    return frozenset(lemma(word) for word in found - _NOT_NAMES if not spelled(word).isdigit())


def _grades(text: str) -> frozenset[str]:
    """A single letter at the end, or after a word like "vitamin": "hepatitis A"."""
    return frozenset(re.findall(r"(?<=[a-z] )([A-Z])(?=\W*$)", text)) - {"I"}


def _modality(low: str) -> frozenset[str]:
    kinds = {"must": _MUST, "should": _SHOULD, "may": _MAY, "want": _WANT, "will": _WILL}
    return frozenset(kind for kind, pattern in kinds.items() if pattern.search(low))


def _asks(low: str) -> str:
    if _LIKE_HOW.match(low):
        return "how"
    found = [(match.start(), -len(match.group()), name) for name, pattern in _ASKS if (match := pattern.search(low))]
    return min(found)[2] if found else ""


def _marked(lemmas: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    marked = set()
    marker = None
    for word in lemmas:
        if word in _MARKERS:
            marker = _MARKERS[word]
        elif marker and word not in STOP:
            marked.add((marker, word))
            marker = None
    return frozenset(marked)


def _after_prepositions(lemmas: tuple[str, ...]) -> frozenset[str]:
    found = set()
    for before, word, after in zip(("", *lemmas), lemmas, (*lemmas[1:], ""), strict=False):
        if before in _PREPOSITIONS:
            found.add(after if word in STOP else word)
    return frozenset(found)

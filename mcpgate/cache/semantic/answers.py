"""Whether two answers of models to one question say the same: for checks of hits against a fresh answer.

Answers to one question differ in wording, length and order, so that this asks for less than judging questions does:
agreement in yes or no, in refusing, in the figures and code given, and sentences of the shorter one that are near in
meaning to some of the longer one's.
"""

import re
from collections.abc import Sequence
from typing import Any

from mcpgate.cache.semantic.words import STOP, lemma, words
from mcpgate.embedding import Embedding
from mcpgate.jsontext import loads

_LONGEST = 8_000
_SENTENCES = 40
_NEAR = 0.60
"""Mean over the shorter answer's sentences of the best cosine with one of the other's."""
_SHARED = 0.35
"""Share of the shorter answer's words that the other has too."""
_FIGURES = 0.5
"""Share of the figures of the answer with fewer that the other has too."""
_END = re.compile(r"(?<=[.!?:])\s+|\n+")
_LIST_NUMBER = re.compile(r"(?m)^\s*(?:\d{1,3}[.)]|[-*•])\s+")
_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
_CODE = re.compile(r"`{1,3}([^`]{1,2000})`{1,3}")
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can't|cannot|can not|don't know|do not know|won't)"
    r"|as an ai|no information about)\b"
)
_LEAD = re.compile(r"^\W*(yes|yeah|correct|true|absolutely|certainly|no|nope|false|incorrect|not)\b")
_AGREES = frozenset(("yes", "yeah", "correct", "true", "absolutely", "certainly"))


def same_answer(one: str, other: str, table: Embedding) -> bool:
    """Symmetric. Reads the first 8,000 characters; takes some milliseconds for long answers."""
    one, other = one[:_LONGEST].strip(), other[:_LONGEST].strip()
    if one == other:
        return True
    if not one or not other:
        return False
    if one[0] in "{[" and other[0] in "{[":
        try:
            return bool(loads(one.encode()) == loads(other.encode()))
        except ValueError:
            pass
    low = one.lower().replace("’", "'"), other.lower().replace("’", "'")
    if _lead(low[0]) != _lead(low[1]) and None not in map(_lead, low):
        return False
    if bool(_REFUSAL.search(low[0][:400])) != bool(_REFUSAL.search(low[1][:400])):
        return False
    if not _covers([set(_FIGURE.findall(_LIST_NUMBER.sub("", text))) for text in low], _FIGURES):
        return False
    if not _covers([{part for code in _CODE.findall(text) for part in code.split()} for text in low], _SHARED):
        return False
    if not _covers([set(map(lemma, words(text))) - STOP for text in low], _SHARED):
        return False
    return _nearness(*(table.encode_all(_sentences(text)) for text in low)) >= _NEAR


def _lead(low: str) -> bool | None:
    found = _LEAD.match(low)
    return None if found is None else found.group(1) in _AGREES


def _covers(parts: Sequence[set[str]], share: float) -> bool:
    """Whether the two have so much of the smaller one in common; true where that is empty."""
    one, other = parts
    return len(one & other) >= share * min(len(one), len(other))


def _sentences(low: str) -> list[str]:
    parts = [part.strip() for part in _END.split(_LIST_NUMBER.sub("", low))]
    return [part for part in parts if part][:_SENTENCES] or [low]


def _nearness(one: Any, other: Any) -> float:
    near = one @ other.T
    shorter = near.max(1) if len(one) <= len(other) else near.max(0)
    return float(shorter.mean())

"""What the oracle of a Code Mode asks for, and what it has seen. Pure.

A query consists of the user's own words, unchanged: no synonyms, no knowledge of tools. If nothing that was shown
contains a tool that the ground truth needs, the last query consists of the words of that tool's name, which is what a
model would try when it asks again in the words of an API. The same for every rival.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.token_savings.task import Call, Turn

_QUERY_WORDS = 16
_QUOTED = re.compile(r"'[^']{0,200}'(?!\w)|\"[^\"]{0,200}\"|“[^”]{0,200}”|`[^`]{0,200}`")
_WORD = re.compile(r"[A-Za-z][A-Za-z]+(?:-[a-z]+)*")
_STOP = frozenset(
    """a about above after afterwards again all already also am an and any are as at be because been before being
    below both but by can cannot could did do does doing done down each either else ensure every few finally
    first for from further get give given go going had has have having he her here hers him his how however i if
    in into is it its itself just kindly know let like ll lot make many may me might more most must my myself
    need next no nor not now of off ok on once one only or other our ours out over own perhaps please quite
    rather re really s same shall she should so some something such sure than thank thanks that the their theirs
    them then there these they this those through to too under until up upon us use using ve very want was way
    we well were what when where whether which while who whom whose why will wish with within without would yes
    you your yours""".split()
)


def question(text: str) -> str:
    """What a user said, as a search query: its content words in order, without quoted text."""
    words = [word for word in _WORD.findall(_QUOTED.sub(" ", text)) if word.lower() not in _STOP]
    return " ".join(list(dict.fromkeys(word.lower() for word in words))[:_QUERY_WORDS]) or text[:80]


def words_of(tool: str) -> str:
    """A tool's name as words: `getUserByName` and `get_user_by_name` are `get user by name`."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", tool)
    return re.sub(r"[^A-Za-z0-9]+", " ", spaced).strip().lower()


def needed(turn: Turn) -> dict[tuple[str, str], list[Call]]:
    """(server, tool) → its calls in this turn, in order of first use."""
    found: dict[tuple[str, str], list[Call]] = {}
    for call in (call for round in turn.rounds for call in round):
        found.setdefault((call.server, call.tool), []).append(call)
    return found


def programs(turn: Turn) -> Sequence[str]:
    """What the oracle executes in this turn, each in its own request."""
    return turn.steps or ([turn.code] if turn.code else [])


def shapes_of(name: str, text: str) -> list[str]:
    """The contents of the parentheses of every `name(…)` in a text."""
    found = []
    for match in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", text):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if not depth:
            found.append(text[match.end() : end - 1])
    return found


def suffices(shape: str, calls: Iterable[Call], identifiers: Mapping[str, str]) -> bool:
    """Whether a call shape names every argument that these calls pass, and every key of objects inside them."""
    return all(
        _names(shape, identifiers.get(key, key), value) for call in calls for key, value in call.arguments.items()
    )


def _names(shape: str, key: str, value: Any) -> bool:
    if "**arguments" in shape:
        return False
    if not re.search(rf"(?<!\w){re.escape(key)}['\"?]*\s*[:=?]", shape):
        return False
    return all(re.search(rf"(?<!\w){re.escape(inner)}(?!\w)", shape) for inner in _keys(value))


def _keys(value: Any) -> Sequence[str]:
    if isinstance(value, dict):
        return [str(key) for key in value] + [key for inner in value.values() for key in _keys(inner)]
    if isinstance(value, list):
        return [key for inner in value for key in _keys(inner)]
    return []


def mentions(text: str, name: str) -> bool:
    """Whether a text contains a name as a whole word."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) is not None

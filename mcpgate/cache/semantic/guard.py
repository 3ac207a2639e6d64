"""Differences between two questions that rule out that one answer serves both, whatever their vectors say.

Deterministic and symmetric. The guard errs towards a difference: a miss costs one call, a wrong hit a wrong answer.
"""

from mcpgate.cache.semantic.facts import EXACT_ASKS, Facts
from mcpgate.cache.semantic.tables import tables

_SAME_SHARE = 0.75
"""Share of content words that both questions must have for their order to be compared."""
_PARTICLES = (("on", "off"), ("in", "out"), ("up", "down"), ("before", "after"), ("with", "without"), ("over", "under"),
              ("my", "your"), ("his", "her"), ("he", "she"), ("above", "below"), ("to", "from"), ("for", "against"),
              ("and", "or"), ("who", "whom"))  # fmt: skip


_DENYING = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "anti", "de")


def difference(one: Facts, other: Facts) -> str | None:
    """The name of the first difference found, or None: "number", "name", "negation", "direction" …"""
    if one.plain == other.plain and one.codes == other.codes and one.quoted == other.quoted:
        return None
    for name, differs in _CHECKS:
        if differs(one, other):
            return name
    return None


def _language(one: Facts, other: Facts) -> bool:
    return one.language != other.language


def _number(one: Facts, other: Facts) -> bool:
    return one.numbers != other.numbers


def _code(one: Facts, other: Facts) -> bool:
    if one.codes == other.codes:
        return False
    return any(not _said(code, other) for code in one.codes - other.codes) or any(
        not _said(code, one) for code in other.codes - one.codes
    )


def _said(code: str, facts: Facts) -> bool:
    """Whether a word that only looks like code, such as "iPhone" or "B12", is written in another case."""
    return code.isalnum() and code.lower() in facts.plain.split() and code.lower() != code


def _parts(one: Facts, other: Facts) -> bool:
    return one.parts != other.parts


def _quotation(one: Facts, other: Facts) -> bool:
    if one.quoted == other.quoted:
        return False
    if one.quoted and other.quoted:
        return True
    quoted, text = (one.quoted, other) if one.quoted else (other.quoted, one)
    said = f" {' '.join(text.words)} "
    return any(f" {part} " not in said for part in quoted)


def _name(one: Facts, other: Facts) -> bool:
    return bool(_unsaid(one, other) or _unsaid(other, one) or one.letters != other.letters)


def _unsaid(one: Facts, other: Facts) -> bool:
    if one.names <= other.names:
        return False
    said = other.names.union(other.lemmas, other.words)
    joined = "".join(other.words)
    initials = "".join(word[0] for word in other.words)
    return any(
        name not in said
        and not _listed(name)
        and name.replace("-", "") not in joined
        and not (1 < len(name) <= 5 and name in initials)
        for name in one.names
    )


def _listed(name: str) -> bool:
    """Whether a name, such as a month's, is in a list of which both questions must use the same words anyway."""
    return any(group in tables().strict for group, _ in tables().members.get(name, ()))


def _negation(one: Facts, other: Facts) -> bool:
    return one.negations != other.negations


def _modality(one: Facts, other: Facts) -> bool:
    ours, theirs = one.modality, other.modality
    if ours == theirs:
        return False
    if one.yes_no and other.yes_no:
        return bool(ours and theirs) or bool((ours | theirs) & {"must", "should", "want"})
    return not ours & theirs and bool(ours & {"must", "should"}) and bool(theirs & {"must", "should", "may"})


def _asked(one: Facts, other: Facts) -> bool:
    ours, theirs = one.asks, other.asks
    if ours in EXACT_ASKS and theirs in EXACT_ASKS:
        return ours != theirs
    if one.yes_no != other.yes_no and "how" not in (ours, theirs):
        return ours in EXACT_ASKS or theirs in EXACT_ASKS
    if one.yes_no != other.yes_no:
        return not ("how" in (ours, theirs) and (one.asks == other.asks or _polite(one, other)))
    return False


def _polite(one: Facts, other: Facts) -> bool:
    """Whether the one that can be answered by yes asks for the way all the same: "can I …", "is there a way to …"."""
    return (one if one.yes_no else other).asks == "how"


def _opposite(one: Facts, other: Facts) -> bool:
    ours, theirs = frozenset(one.lemmas), frozenset(other.lemmas)
    only_ours, only_theirs = ours - theirs, theirs - ours
    if tables().opposed(only_ours, only_theirs) or _denied(only_ours, only_theirs) or _denied(only_theirs, only_ours):
        return True
    return any((a in only_ours and b in only_theirs) or (b in only_ours and a in only_theirs) for a, b in _PARTICLES)


def _denied(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    """Whether a word of ours is one of theirs with a prefix or an ending that negates it."""
    return any(
        (word.startswith(prefix) and word[len(prefix) :] in theirs) or (word.endswith("less") and word[:-4] in theirs)
        for word in ours
        for prefix in _DENYING
        if len(word) > 5
    )


def _kind(one: Facts, other: Facts) -> bool:
    for group in one.groups.keys() | other.groups.keys():
        ours, theirs = one.groups.get(group, frozenset()), other.groups.get(group, frozenset())
        if ours != theirs and (group in tables().strict or (ours - theirs and theirs - ours)):
            return True
    return False


def _direction(one: Facts, other: Facts) -> bool:
    ours, theirs = frozenset(one.lemmas), frozenset(other.lemmas)
    by_marker: dict[str, tuple[set[str], set[str]]] = {}
    for side, facts in enumerate((one, other)):
        for marker, word in facts.marked:
            by_marker.setdefault(marker, (set(), set()))[side].add(word)
    for mine, its in by_marker.values():
        if mine and its and mine != its and mine - its <= theirs and its - mine <= ours:
            return True
    return False


def _order(one: Facts, other: Facts) -> bool:
    """Whether shared words stand in another order that no clause moved as a whole explains."""
    shared = set(one.content) & set(other.content)
    once = {word for word in shared if one.content.count(word) == other.content.count(word) == 1}
    mine = [word for word in one.content if word in once]
    its = [word for word in other.content if word in once]
    if mine == its or len(mine) < 2:
        return False
    if len(shared) < _SAME_SHARE * max(len(set(one.content)), len(set(other.content))):
        return False
    movable = one.fronted | other.fronted
    return not any(
        mine[at:] + mine[:at] == its and (mine[at] in movable or mine[0] in movable) for at in range(1, len(mine))
    )


_CHECKS = (
    ("language", _language),
    ("number", _number),
    ("quotation", _quotation),
    ("parts", _parts),
    ("code", _code),
    ("name", _name),
    ("negation", _negation),
    ("opposite", _opposite),
    ("kind", _kind),
    ("asked", _asked),
    ("modality", _modality),
    ("direction", _direction),
    ("order", _order),
)

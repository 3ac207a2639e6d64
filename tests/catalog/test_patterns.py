import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpgate.catalog.patterns import MAX_PATTERN, MAX_STATES, MAX_TEXT, compiled

_ATOMS = st.sampled_from(
    r"a b c 1 0 - _ / @ . \d \w \s \W \. \- \/ \x41 \n \b [abc] [^a-c] [\w.-] [a-z0-9_-] [\d\s] [^\W_] [[&&] "
    r"[a~~] [-a] { } ^ $ é [à-ü]".split()
)
_REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?"])
_PATTERNS = st.recursive(
    st.tuples(_ATOMS, _REPEATS).map("".join),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4).map("".join)
        | st.tuples(inner, inner).map("|".join)
        | st.tuples(inner, _REPEATS).map(lambda parts: f"({parts[0]}){parts[1]}")
    ),
    max_leaves=8,
)


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
@settings(max_examples=400, deadline=None)
@given(_PATTERNS, st.text(st.sampled_from("abcABC10 -_/@.\n{}[]&~^$é")) | st.text(max_size=8))
def test_a_pattern_finds_what_python_finds_or_is_not_judged(pattern: str, text: str) -> None:
    try:
        expected = re.search(pattern, text) is not None
    except re.error:
        return
    ready = compiled(pattern)
    found = ready.matches(text) if ready is not None else None
    assert found is None or found is expected


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        (r"^\d{4}-\d{2}-\d{2}$", "2026-11-28", "28.11.2026"),
        (r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$", "ada@example.com", "ada"),
        (r"^[\w-.]+$", "a-b.c", "a b"),
        (r"^(?:https?)://", "https://x.test", "ftp://x.test"),
        (r"^(?P<year>\d+)/(?<day>\d+)$", "1/2", "1-2"),
        (r"^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$", "01234567-89ab-cdef-0123-456789abcdef", "0123"),
        (r"^\{.*\}$", "{a}", "a"),
        ("^{a}$", "{a}", "a"),
        (r"(?i)^yes|no$", "YES", "perhaps"),
        ("^.{1,1000}$", "x" * 1000, "x" * 1001),
        ("^[[]$", "[", "("),
    ],
)
def test_patterns_as_servers_write_them_are_judged(pattern: str, right: str, wrong: str) -> None:
    ready = compiled(pattern)
    assert ready is not None
    assert ready.matches(right) is True and ready.matches(wrong) is False


@pytest.mark.parametrize(
    "pattern",
    r"(?=a)b (?<!a)b (a)\1 \p{L} a++ \Aa\Z []a] [^] a{,3} ( ) [ *a [z-a] \u{1F600} \ud800 \01 \cA (?x)a a** "
    "\\".split(),
)
def test_what_dialects_read_differently_is_not_judged(pattern: str) -> None:
    assert compiled(pattern) is None


def test_words_and_digits_are_judged_where_ascii_and_unicode_agree() -> None:
    ready = compiled(r"^\w+$")
    assert ready is not None
    assert ready.matches("abc") is True and ready.matches("a b") is False and ready.matches("größe") is None


def test_a_final_newline_which_only_python_ignores_is_not_judged() -> None:
    ready = compiled("^[a-z]+$")
    assert ready is not None
    assert ready.matches("abc\n") is None and ready.matches("a1\n") is False


def test_a_lone_surrogate_is_not_judged() -> None:
    ready = compiled("^a$")
    assert ready is not None
    assert ready.matches("\ud800") is None


@pytest.mark.parametrize(
    "pattern",
    [
        "a" * (MAX_PATTERN + 1),
        "(a{1000}){1000}",
        "((((a{20}){20}){20}){20}){20}",
        ".{4000}",
        "[^a]{4000}",
        "(" * 60 + "a" + ")" * 60,
        "(){999999}",
        "|".join(["a{2000}"] * 100),
    ],
)
def test_a_pattern_that_is_large_when_written_out_is_not_judged(pattern: str) -> None:
    assert compiled(pattern) is None


@given(_PATTERNS)
def test_what_is_compiled_is_small_and_its_cost_is_known_before(pattern: str) -> None:
    told: list[int] = []
    ready = compiled(pattern + "#", told.append)
    assert sum(told) <= 2 * MAX_STATES
    assert ready is None or ready.states <= MAX_STATES
    again: list[int] = []
    assert compiled(pattern + "#", again.append) is ready and again == []


def test_a_cost_that_is_too_high_stops_the_compilation() -> None:
    def refuse(price: int) -> None:
        if price > 1000:
            raise OverflowError

    with pytest.raises(OverflowError):
        compiled("^[^b]{1111}$", refuse)


def test_a_text_that_is_too_long_is_not_judged() -> None:
    ready = compiled("^a+$")
    assert ready is not None and ready.matches("a" * (MAX_TEXT + 1)) is None

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.telemetry.text import one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größe, 名前, 🙂", "plain, größe, 名前, 🙂"),
        ("\x1b]0;title\x07\x1b[2K\rok", r"\x1b]0;title\x07\x1b[2K\rok"),
        ("a\nb\tc\r\nd", r"a\nb\tc\r\nd"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("user\u202etxt.exe\u2066\u200f\u061c", r"user\u202etxt.exe\u2066\u200f\u061c"),
        ("one\u2028two\u2029three", r"one\u2028two\u2029three"),
        ("\ud83d", r"\ud83d"),
    ],
)
def test_what_moves_the_cursor_or_changes_the_text_direction_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_lines_and_tabs_stay_where_they_are_allowed_but_a_carriage_return_does_not() -> None:
    assert visible("a\n\tb\r\n", lines=True) == "a\n\tb\\r\n"


@given(st.text(st.characters()) | st.text(st.sampled_from("\x00\x1b\r\n\u202e\u2028\ud800ab")), st.booleans())
def test_nothing_is_left_that_a_terminal_obeys_and_all_can_be_encoded(text: str, lines: bool) -> None:
    shown = visible(text, lines)
    allowed = "\n\t" if lines else ""
    assert all(char in allowed or unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
    assert visible(shown, lines) == shown
    assert shown.encode().decode() == shown


def test_a_text_longer_than_the_limit_is_cut() -> None:
    assert visible("x" * 10**7, limit=100) == "x" * 99 + "…"
    assert visible("x" * 100, limit=100) == "x" * 100


def test_white_space_of_any_kind_is_one_space_in_one_line() -> None:
    assert one_line("  a\n\n b\tc\u2028d ") == "a b c d"
    assert len(one_line("word " * 10**6, 50)) == 50

"""The guardrail that finds secrets and personal data by their form."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.governance.callers import LOCAL
from mcpgate.llm.guardrails import About, Blocked
from mcpgate.llm.patterns import PATTERNS, Patterns

ABOUT = About(LOCAL, "fast", "chat")
MASKED = {"secrets": "mask", "emails": "mask", "cards": "mask", "ibans": "mask", "phones": "mask"}
pytestmark = pytest.mark.anyio
WORDS = st.sampled_from(
    [
        *("hello", "the fox", "a\nline", "x@y", "@", "12 34", "-", "DE", "sk-", " ", "\n", "and so on, "),
        *("ada@example.com", "4111 1111 1111 1111", "4111111111111112", "DE89 3704 0044 0532 0130 00"),
        *("+49 30 1234567", "sk-proj-abcdefghijklmnopqrstuv", "ghp_" + "a" * 36, "AKIAABCDEFGHIJKLMNOP"),
    ]
)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ada@example.com today", "write to [emails] today"),
        ("key sk-proj-abcdefghijklmnopqrstuv.", "key [secrets]."),
        ("card 4111 1111 1111 1111, please", "card [cards], please"),
        ("number 4111 1111 1111 1112", "number 4111 1111 1111 1112"),
        ("IBAN DE89 3704 0044 0532 0130 00", "IBAN [ibans]"),
        ("call +49 30 1234567", "call [phones]"),
        ("version 1.2.3 of 2026-11-28", "version 1.2.3 of 2026-11-28"),
    ],
)
async def test_what_is_found_is_masked_and_nothing_else(text: str, masked: str) -> None:
    assert await Patterns(MASKED).before([text], ABOUT) == [masked]


async def test_what_is_to_be_blocked_is_refused_by_its_name() -> None:
    guardrail = Patterns({"secrets": "block", "emails": "allow"})
    assert await guardrail.before(["ada@example.com"], ABOUT) == ["ada@example.com"]
    with pytest.raises(Blocked, match="secrets"):
        await guardrail.before(["fine", "AKIAABCDEFGHIJKLMNOP"], ABOUT)


@given(st.lists(WORDS, max_size=12), st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_an_answer_in_pieces_is_masked_like_a_whole_one(words: list[str], sizes: list[int]) -> None:
    text = " ".join(words)
    guardrail = Patterns(MASKED)
    filter = guardrail.during(ABOUT)
    assert filter is not None
    passed, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        passed.append(filter.feed(text[at : at + size]))
        at, turn = at + size, turn + 1
    passed.append(filter.end())
    assert "".join(passed) == guardrail.checked(text, "x")


def test_a_text_without_blanks_is_not_kept_for_ever() -> None:
    filter = Patterns(MASKED).during(ABOUT)
    assert filter is not None
    passed = "".join(filter.feed("abc") for _ in range(2000))
    assert 5000 < len(passed) < 6000 and passed + filter.end() == "abc" * 2000


@given(st.sampled_from(sorted(PATTERNS)), st.text("a1@.- +A", max_size=3000))
def test_no_pattern_takes_long_for_any_text(name: str, text: str) -> None:
    re.compile(PATTERNS[name]).sub("", text * 20)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"secret": "mask"}, "there is no pattern 'secret'"),
        ({"secrets": "hide"}, "must be mask, block or allow"),
        ({"more": {"x": "["}, "x": "mask"}, "more:"),
        ({"more": ["x"]}, "must map names"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Patterns(settings)

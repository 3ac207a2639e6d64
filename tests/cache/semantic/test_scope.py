"""Questions whose answers are not for everyone, or not for long."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.cache.semantic import scope
from mcpgate.cache.semantic.scope import is_personal, is_time_relative


@pytest.mark.parametrize(
    "text",
    [
        "Where is my order?",
        "What is my balance?",
        "I was charged twice",
        "we've been billed for August",
        "What does our contract say about notice?",
        "Track order 48213",
        "Has ada@example.com paid?",
        "Am I eligible for the grant?",
        "Do I have any unread messages?",
        "Summarise my last meeting",
    ],
)
def test_what_is_about_the_caller_is_personal(text: str) -> None:
    assert is_personal(text)


@pytest.mark.parametrize(
    "text",
    [
        "How do I change my password?",
        "Can you tell me how to cancel my subscription?",
        "Where can I download my invoices?",
        "What is the capital of Peru?",
        "Do I have to register a car?",
        "Write a poem about autumn",
    ],
)
def test_what_has_one_answer_for_all_is_not_personal(text: str) -> None:
    assert not is_personal(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is the weather in Lisbon?",
        "Latest version of Django",
        "Who won the match last night?",
        "Is the shop open now?",
        "What is the current price of gold?",
        "What happened this week?",
        "Is Windows 10 still supported?",
        "Who is the president of France?",
    ],
)
def test_what_depends_on_the_day_is_time_relative(text: str) -> None:
    assert is_time_relative(text)


@pytest.mark.parametrize("text", ["How do tides work?", "Who painted the Mona Lisa?", "How do I renew a passport?"])
def test_what_stays_true_is_not_time_relative(text: str) -> None:
    assert not is_time_relative(text)


@pytest.mark.parametrize("unit", ["my ", "i was ", "my a b ", "1", "a@", "this next ", "order ", "who is the x "])
def test_hostile_text_is_read_in_bounded_time(unit: str) -> None:
    start = time.process_time()
    for size in (20_000, 1_000_000):
        text = (unit * size)[:size]
        is_personal(text)
        is_time_relative(text)
    assert time.process_time() - start < 1


def test_what_is_too_long_to_be_read_counts_as_both() -> None:
    assert is_personal("x" * 30_000)
    assert is_time_relative("x" * 30_000)


@given(st.from_regex(scope._STATEMENT))
def test_nothing_that_tells_of_somebody_is_overlooked_before_it_is_looked_for(text: str) -> None:
    assert is_personal(text)

"""Whether two answers to one question say the same."""

import pytest

pytest.importorskip("numpy")

from mcpgate.cache.semantic.answers import same_answer
from mcpgate.embedding import Embedding


@pytest.fixture(scope="module")
def table() -> Embedding:
    return Embedding.load()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris.", "Paris."),
        ("The capital of France is Paris.", "Paris is the capital of France."),
        (
            "Open Settings, choose Security and click Reset password. You will get an email with a link.",
            "1. Go to Settings.\n2. Choose Security.\n3. Click on Reset password; an email with a link is sent to you.",
        ),
        ("Yes, you can return items within 30 days.", "Yes. Items can be returned within 30 days of purchase."),
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}'),
        (
            "Use `git reset --soft HEAD~1` to undo the last commit.",
            "Run `git reset --soft HEAD~1`; it undoes your last commit.",
        ),
    ],
)
def test_answers_that_say_the_same(table: Embedding, one: str, other: str) -> None:
    assert same_answer(one, other, table)
    assert same_answer(other, one, table)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The capital of France is Paris.", "The tallest tower stands in Tokyo and belongs to a broadcaster."),
        ("Yes, you can return items.", "No, you cannot return items."),
        ("You can return items within 30 days.", "You can return items within 14 days."),
        ("You can return items within 30 days.", "I'm sorry, I can't help with that."),
        ("Use `git reset --soft HEAD~1`.", "Use `git revert abc`."),
        ('{"a": 1}', '{"a": 2}'),
        ("Paris", ""),
    ],
)
def test_answers_that_differ(table: Embedding, one: str, other: str) -> None:
    assert not same_answer(one, other, table)
    assert not same_answer(other, one, table)


def test_long_answers_are_compared_in_bounded_time(table: Embedding) -> None:
    assert not same_answer("a. " * 400_000, "b! " * 400_000, table)

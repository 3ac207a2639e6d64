from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.catalog.brief import brief
from tests.catalog.schemas import ANY_JSON


@given(ANY_JSON)
def test_a_small_value_is_written_as_python_writes_it(value: Any) -> None:
    text = repr(value)
    assert brief(value, 10_000) == text or "integer of" in brief(value, 10_000)


@given(ANY_JSON, st.integers(10, 80))
def test_a_value_never_takes_more_than_its_room_and_what_is_shown_is_its_beginning(value: Any, room: int) -> None:
    shown, whole = brief(value, room), repr(value)
    assert len(shown) <= room
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[: min(len(shown) - 1, room // 2)]))


HUGE: dict[str, Any] = {
    "text": "x" * 10**7,
    "list": ["y"] * 10**6,
    "object": {i: i for i in range(10**5)},
    "number": 10**9999,
    "tuple": (1,) * 10**6,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_value_is_cut(name: str) -> None:
    assert len(brief(HUGE[name])) <= 60

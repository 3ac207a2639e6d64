import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.codemode.results import describe, render, shape, shorten_text, to_table
from mcpgate.tokens import estimate
from tests.catalog.work import work_of

_CELLS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_JSON = st.recursive(
    _CELLS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)
ROWS = [{"id": i, "name": f"item {i}", "done": i % 2 == 0} for i in range(500)]


def test_a_short_value_is_compact_json() -> None:
    assert render({"a": [1, None, True], "b": "é"}) == '{"a":[1,null,true],"b":"é"}'


def test_a_text_is_itself() -> None:
    assert render('say "hi"\n') == 'say "hi"\n'


def test_uniform_rows_are_a_table_when_that_is_shorter() -> None:
    assert render(ROWS[:3]) == "id,name,done\n0,item 0,true\n1,item 1,false\n2,item 2,true\n(3 rows)"
    assert render([{"x": 1}] * 2) == '[{"x":1},{"x":1}]'


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": 1}, {"a": 2}],
        [{"a": 1}, {"b": 2}, {"a": 3}],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2}],
        [{"a": [1]}, {"a": [2]}, {"a": [3]}],
        [{"a": None}, {"a": ""}, {"a": "x"}],
        [{}, {}, {}],
        [1, 2, 3],
        {"a": 1},
    ],
)
def test_what_a_table_would_lose_is_not_made_one(rows: Any) -> None:
    assert to_table(rows) is None


@given(
    st.lists(
        st.fixed_dictionaries({"id": st.integers(), "text": st.text(), "x": st.none() | st.text(min_size=1)}),
        min_size=3,
    )
)
def test_a_table_holds_every_cell(rows: list[dict[str, Any]]) -> None:
    table = to_table(rows)
    if table is None:
        return
    body, _, count = table.rpartition("\n")
    # csv reads a bare carriage return as the end of a line unless told to keep it.
    read = list(csv.DictReader(io.StringIO(body, newline="")))
    assert [(r["id"], r["text"], r["x"]) for r in read] == [(str(r["id"]), r["text"], r["x"] or "") for r in rows]
    assert count == f"({len(rows)} rows)"


@pytest.mark.parametrize("value", [{1: "a", None: "b"}, 2**100, [2**64, -(2**70)], {"k": {2.5: 1}}])
def test_what_json_cannot_express_is_still_written(value: Any) -> None:
    assert json.loads(render(value)) == json.loads(json.dumps(value))


def test_a_value_that_fits_is_whole() -> None:
    shaped = shape(ROWS[:20], 2000)
    assert not shaped.shortened and shaped.text == render(ROWS[:20])


def test_a_long_list_keeps_its_first_and_last_items_counts_and_shape() -> None:
    shaped = shape(ROWS, 300)
    assert shaped.shortened
    assert '"id":0' in shaped.text and '"id":499' in shaped.text
    assert "more …" in shaped.text
    assert shaped.text.endswith("[shortened; whole: list of 500 objects {id, name, done}]")


def test_a_long_text_keeps_its_beginning_and_end_and_says_how_much_is_missing() -> None:
    text = "first line\n" + "filler words here\n" * 5000 + "last line"
    shaped = shape(text, 200)
    assert shaped.shortened and shaped.text.startswith("first line") and shaped.text.endswith("last line")
    kept = shaped.text.partition("\n[… ")[0], shaped.text.partition("left out …]\n")[2]
    assert f"[… {len(text) - len(kept[0]) - len(kept[1]):,} characters left out …]" in shaped.text


def test_long_texts_inside_are_shortened_before_items_are_dropped() -> None:
    shaped = shape([{"id": i, "body": "word " * 2000} for i in range(5)], 500)
    assert all(f'\n{i},"word' in shaped.text for i in range(5)) and "chars]…" in shaped.text


def test_a_wide_object_says_how_many_keys_are_missing() -> None:
    assert "more keys" in shape({f"key_{i}": "value " * 10 for i in range(500)}, 300).text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], "list of 0"),
        ([1, "a", None], "list of 3 NoneType | int | str"),
        ([{"a": 1}] * 4880, "list of 4,880 objects {a}"),
        ([{str(i): i for i in range(9)}], "list of 1 objects {0, 1, 2, 3, 4, 5, 6, 7, …}"),
        ({"a": 1}, "object of 1 keys"),
        ("a\nb", "text of 3 characters, 2 lines"),
        (1.5, "float"),
    ],
)
def test_a_value_is_described_without_what_is_in_it(value: Any, expected: str) -> None:
    assert describe(value) == expected


def test_huge_keys_do_not_get_past_the_limit() -> None:
    rows = [{f"{i}" * 5000: 1 for i in range(9)}] * 3000
    assert estimate(shape(rows, 100).text) < 400


def test_a_value_nested_as_deep_as_json_can_be_is_shaped() -> None:
    value: Any = "x"
    for _ in range(900):
        value = [value]
    assert "list of 1 list" in shape(value, 100).text


@given(_JSON, st.integers(100, 400))
def test_no_value_takes_much_more_than_its_room(value: Any, room: int) -> None:
    shaped = shape([value] * 200, room)
    assert estimate(shaped.text) <= room + 200
    assert shaped.shortened or shaped.text == render([value] * 200)


@given(st.text(), st.integers(100, 300))
def test_a_shortened_text_fits(text: str, room: int) -> None:
    assert estimate(shorten_text(text * 50, room)) <= room


@given(_JSON, st.integers(1, 60))
def test_a_value_is_shown_whole_exactly_if_its_shortest_form_fits(value: Any, room: int) -> None:
    whole = render(value)
    fitting = estimate(whole) <= room and len(whole) <= room * 6
    assert shape(value, room).shortened is not fitting or isinstance(value, str)


@given(st.lists(st.fixed_dictionaries({"a": st.none() | st.integers(), "b": st.booleans()}), min_size=3, max_size=40))
def test_rows_are_shown_whole_exactly_if_their_table_fits(rows: list[dict[str, Any]]) -> None:
    whole = render(rows)
    tokens = max(estimate(whole), -(-len(whole) // 6))
    assert shape(rows, tokens).text == whole
    assert shape(rows, max(1, min(estimate(whole), len(whole) // 6) - 1)).shortened


def _nested(width: int, depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] * width
    return value


LARGE: dict[str, Callable[[], Any]] = {
    "rows": lambda: [{"a": number, "b": "x"} for number in range(500_000)],
    "rows of long keys": lambda: [{"k" * 3_000 + str(i): 1 for i in range(9)}] * 100_000,
    "keys": lambda: {f"key_{number}": number for number in range(500_000)},
    "numbers": lambda: list(range(1_000_000)),
    "text": lambda: "word " * 5_000_000,
    "text in an object": lambda: {"a": {"b": ["word " * 5_000_000]}},
    "empty lists": lambda: [[]] * 1_000_000,
    "a tree": lambda: _nested(18, 4),
    "a tree of trees": lambda: [_nested(12, 3)] * 1_000,
    "many deep lists": lambda: [_nested(1, 300)] * 20_000,
}
"""Made when a test asks: together they would take a gigabyte for the whole run."""


@pytest.mark.parametrize("name", LARGE)
def test_no_more_of_a_large_value_is_read_than_could_be_shown(name: str) -> None:
    found: list[Any] = []
    value = LARGE[name]()
    assert work_of(lambda: found.append(shape(value, 2_000))) < 200_000
    assert found[0].shortened and estimate(found[0].text) <= 2_100

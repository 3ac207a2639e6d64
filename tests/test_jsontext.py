import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpgate import jsontext
from mcpgate.jsontext import MAX_SPOILT, MAX_VALUES, count_values
from tests.catalog.schemas import ANY_JSON


@given(ANY_JSON)
def test_what_is_written_reads_back(value: Any) -> None:
    if "Infinity" not in json.dumps(value):
        assert jsontext.loads(jsontext.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[NaN, Infinity]", [None, None]),
        (b'"\\ud800x"', "\ud800x"),
        (b"[18446744073709551616]", [2**64]),
        (b"[-99999999999999999999]", [-99999999999999999999]),
    ],
)
def test_nonstandard_json_of_peers_is_read(text: bytes, value: Any) -> None:
    assert jsontext.loads(text) == value


def test_invalid_utf_8_is_read_as_the_caller_wishes() -> None:
    assert jsontext.loads(b'"a\xff"', "replace") == "a\ufffd"
    with pytest.raises(ValueError, match="utf-8|UTF-8|str is not valid"):
        jsontext.loads(b'"a\xff"')


@pytest.mark.parametrize("text", [b"", b"{", b'{"a"', b"[1,]", b"nul", b"9" * 5000, b"\xff"])
def test_what_is_not_json_is_rejected_with_a_reason(text: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        jsontext.loads(text)
    assert str(caught.value)


def test_900_levels_are_read_and_100_000_are_refused_as_nested_too_deeply() -> None:
    assert jsontext.loads(b"[" * 900 + b"]" * 900)
    with pytest.raises(ValueError, match="nested too deeply"):
        jsontext.loads(b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        jsontext.loads(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)


@pytest.mark.parametrize("unit", [b"[]", b"{}", b"1", b'"a"', b'{"a":1}'])
def test_values_that_would_fill_the_memory_are_refused_before_they_are_made(unit: bytes) -> None:
    with pytest.raises(ValueError, match="more than 100,000 values"):
        jsontext.loads(b"[" + (unit + b",") * 200_000 + b"1]", most=100_000)


def test_of_values_there_may_be_four_million() -> None:
    assert len(jsontext.loads(b"[1" + b",1" * (MAX_VALUES - 1) + b"]")) == MAX_VALUES
    with pytest.raises(ValueError, match="more than 4,000,000 values"):
        jsontext.loads(b"[1" + b",1" * MAX_VALUES + b"]")


def test_marks_in_strings_are_no_values() -> None:
    for string in (b",:[{" * MAX_VALUES, b'\\",' * MAX_VALUES, b"\\\\," * MAX_VALUES):
        assert len(jsontext.loads(b'["' + string + b'"]')) == 1


def size_of(value: Any) -> int:
    """Values and keys, as they are written."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(size_of, value.values()))
    return 1 + sum(map(size_of, value)) if isinstance(value, list) else 1


@settings(max_examples=50)
@given(ANY_JSON)
def test_values_are_counted_without_decoding(value: Any) -> None:
    """But for one: nothing stands before the first."""
    text = jsontext.dumps([value, value])
    containers = 1 + 2 * sum(isinstance(part, dict | list) for part in walk(value))
    assert size_of([value, value]) - 1 <= count_values(text, 1 << 40, rough=0) <= size_of([value, value]) + containers
    assert count_values(text, 1 << 40, rough=1 << 40) >= count_values(text, 1 << 40, rough=0)


def walk(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(part for one in inner for part in walk(one))]


@given(st.text(st.sampled_from('\\",:[{a]}'), max_size=200), st.integers(2, 50))
def test_counting_in_steps_finds_what_counting_at_once_does(text: str, step: int) -> None:
    data = jsontext.dumps([text, {"a": [text, 1]}])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jsontext, "_STEP", step)
        assert count_values(data, 1 << 40, rough=0) == 6


def test_a_large_text_of_strings_and_numbers_is_read() -> None:
    rows = [{"id": number, "name": "x" * 100} for number in range(100_000)]
    assert jsontext.loads(json.dumps(rows).encode()) == rows
    assert len(jsontext.loads(b'"' + b"x" * 30_000_000 + b'"')) == 30_000_000


def test_a_nonstandard_text_is_read_up_to_a_size() -> None:
    assert len(jsontext.loads(b'["' + b"x" * (MAX_SPOILT - 100) + b'", NaN]')) == 2
    with pytest.raises(ValueError, match=r"longer than 8,388,608 bytes"):
        jsontext.loads(b'["' + b"x" * MAX_SPOILT + b'", NaN]')

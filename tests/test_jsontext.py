import json
from typing import Any

import pytest
from hypothesis import given

from mcpgate import jsontext
from mcpgate.jsontext import MAX_CONTAINERS, MAX_SPOILT
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


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'{"a":1},'])
def test_lists_and_objects_that_would_fill_the_memory_are_refused_before_they_are_made(unit: bytes) -> None:
    with pytest.raises(ValueError, match="more than 1,000,000 lists and objects"):
        jsontext.loads(b"[" + unit * MAX_CONTAINERS + b"1]")


def test_a_large_text_of_strings_and_numbers_is_read() -> None:
    rows = [{"id": number, "name": "x" * 100} for number in range(100_000)]
    assert jsontext.loads(json.dumps(rows).encode()) == rows
    assert len(jsontext.loads(b'"' + b"x" * 30_000_000 + b'"')) == 30_000_000


def test_a_nonstandard_text_is_read_up_to_a_size() -> None:
    assert len(jsontext.loads(b'["' + b"x" * (MAX_SPOILT - 100) + b'", NaN]')) == 2
    with pytest.raises(ValueError, match=r"longer than 8,388,608 bytes"):
        jsontext.loads(b'["' + b"x" * MAX_SPOILT + b'", NaN]')

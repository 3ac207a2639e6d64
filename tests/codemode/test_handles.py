import base64

import pytest

from mcpgate.codemode.handles import HandleStore
from mcpgate.errors import NotFound


def test_a_kept_value_is_found_under_its_name() -> None:
    store = HandleStore(10, 1000)
    value, text = store.keep_value("ada", {"a": [1]}), store.keep_value("ada", "words")
    assert (value.id, text.id) == ("r1", "r2")
    assert store.get("ada", "r1").value == {"a": [1]} and store.get("ada", "r2").value == "words"
    assert (value.mime_type, text.mime_type) == ("application/json", "text/plain")


@pytest.mark.parametrize("raw", [b"", b"a", b"ab", b"abc", b"abcd"])
def test_the_size_of_data_is_that_of_its_bytes(raw: bytes) -> None:
    kept = HandleStore(10, 1000).keep_data("ada", "image", "image/png", base64.b64encode(raw).decode(), "x:y")
    assert (kept.size, kept.kind, kept.uri) == (len(raw), "image", "x:y")


def test_nobody_can_name_anothers_values() -> None:
    store = HandleStore(10, 1000)
    store.keep_value("ada", "secret")
    with pytest.raises(NotFound, match="handle 'r1' does not exist") as caught:
        store.get("bob", "r1")
    assert "secret" not in caught.value.message
    assert store.keep_value("bob", "own").id == "r1"
    assert store.get("ada", "r1").value == "secret"


def test_the_least_recently_used_goes_first() -> None:
    store = HandleStore(2, 1000)
    store.keep_value("ada", "one")
    store.keep_value("ada", "two")
    store.get("ada", "r1")
    store.keep_value("ada", "three")
    assert store.get("ada", "r1").value == "one"
    with pytest.raises(NotFound, match="handle 'r2' was dropped: .* idle for 1800 s; kept: r3, r1"):
        store.get("ada", "r2")


def test_the_bytes_of_a_caller_are_bounded_and_one_caller_costs_another_nothing() -> None:
    store = HandleStore(100, 10)
    store.keep_value("bob", "12345")
    for _ in range(5):
        store.keep_value("ada", "123456")
    assert store.get("ada", "r5").value == "123456" and store.get("bob", "r1").value == "12345"
    with pytest.raises(NotFound, match="was dropped: .*; kept: r5"):
        store.get("ada", "r4")


def test_the_newest_value_is_kept_even_if_it_alone_is_too_large() -> None:
    store = HandleStore(10, 5)
    store.keep_value("ada", "x")
    assert store.get("ada", store.keep_value("ada", "far too large").id).value == "far too large"


@pytest.mark.parametrize("id", ["", "r", "r0", "r9", "r-1", "r²", "R1", "1", "../r1"])
def test_a_name_that_never_was_does_not_exist(id: str) -> None:
    store = HandleStore(10, 1000)
    store.keep_value("ada", "x")
    with pytest.raises(NotFound, match="does not exist; kept: r1"):
        store.get("ada", id)


@pytest.mark.parametrize("value", [2**100, {1: "a"}, {"a": {None: 2**70}}, [], None, ["\ud800"]])
def test_every_value_that_code_can_return_can_be_kept(value: object) -> None:
    store = HandleStore(10, 1000)
    assert store.get("ada", store.keep_value("ada", value).id).value == value


def test_what_nobody_used_for_long_is_gone_and_says_so() -> None:
    store = HandleStore(10, 1000, idle_s=0)
    kept = store.keep_value("ada", [1])
    with pytest.raises(NotFound, match=f"handle '{kept.id}' was dropped: .*idle for 0 s"):
        store.get("ada", kept.id)
    assert store.keep_value("ada", [2]).id == "r2"

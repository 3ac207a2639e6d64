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


# --- fair shares


def names_of(store: HandleStore, owner: str, account: str | None = None) -> list[str]:
    """What an owner can still load."""
    found = []
    for number in range(1, 200):
        try:
            found.append(store.get(owner, f"r{number}", account).id)
        except NotFound:
            pass
    return found


def test_users_that_one_key_names_share_its_room_and_none_reads_what_is_anothers() -> None:
    store = HandleStore(3, 1000)
    for number in range(50):
        store.keep_value(f"key\nuser {number}", "x", account="key")
    kept = [owner for number in range(50) for owner in [f"key\nuser {number}"] if names_of(store, owner, "key")]
    assert kept == ["key\nuser 47", "key\nuser 48", "key\nuser 49"]
    with pytest.raises(NotFound):
        store.get("key", "r1", "key")
    with pytest.raises(NotFound, match="does not exist"):
        store.get("key\nuser 49", "r2", "key")


def test_all_values_together_are_bounded_and_who_has_most_gives_way() -> None:
    store = HandleStore(100, 60, max_bytes_in_all=100)
    store.keep_value("bob", "12345")
    for account in ("eve", "mallory"):
        for _ in range(9):
            store.keep_value(account, "1234567890")
    assert names_of(store, "bob") == ["r1"], "who has little loses nothing"
    assert len(names_of(store, "eve")) + len(names_of(store, "mallory")) == 9
    assert abs(len(names_of(store, "eve")) - len(names_of(store, "mallory"))) <= 1


def test_what_was_just_kept_is_there_though_it_alone_is_more_than_all_may_be() -> None:
    store = HandleStore(10, 1000, max_bytes_in_all=5)
    store.keep_value("ada", "12345")
    kept = store.keep_value("bob", "more than five")
    assert store.get("bob", kept.id).value == "more than five"
    assert names_of(store, "ada") == []


def test_the_number_of_values_is_bounded_however_many_keys_have_some() -> None:
    store = HandleStore(10, 1000, max_handles_in_all=25)
    for number in range(100):
        store.keep_value(f"key {number % 50}", "")
    assert sum(len(names_of(store, f"key {number}")) for number in range(50)) == 25


def test_nothing_is_remembered_of_owners_that_have_nothing_any_more_but_a_bounded_number_of_numbers() -> None:
    store = HandleStore(10, 1000, idle_s=0)
    for number in range(10_500):
        store.keep_value(f"key {number}", "")
    with pytest.raises(NotFound):
        store.get("key 1", "r1")
    assert len(store._accounts) <= 1 and len(store._next) == 10_000
    assert (store._size, store._number) == (0, 0)


def test_text_of_wide_letters_and_objects_count_for_the_memory_that_they_take() -> None:
    store = HandleStore(100, 400)
    for _ in range(3):
        store.keep_value("ada", "\U0001f600" * 40)  # 160 bytes each
    assert len(names_of(store, "ada")) == 2
    for _ in range(50):
        store.keep_value("bob", [1, 2, 3, 4])
    assert len(names_of(store, "bob")) == 5

"""What is learned, over the real store in a real file."""

import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.catalog.learned import Memory
from mcpgate.catalog.shapes import keys_of, shape_of
from mcpgate.stores.sqlite.learned import SqliteLearnedStore
from tests.catalog.schemas import ANY_JSON, tool

TOOL = tool({}, "query")
TEXT = {"type": "string"}


@contextmanager
def memory(path: Path | None) -> Iterator[Memory]:
    """One run of a gateway."""
    store = SqliteLearnedStore(path)
    opened = Memory(store)
    opened.place(TOOL.server, ["prog", "--flag"])
    yield opened
    opened.flush()
    store.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "mcpgate.sqlite3"


def test_shapes_and_catalogs_are_kept_over_restarts(file: Path) -> None:
    with memory(file) as first:
        assert first.observed(TOOL) is None and first.recall_tools("srv") == []
        first.learn(TOOL, "text")
        first.remember_tools("srv", [TOOL.raw])
    with memory(file) as second:
        assert second.observed(TOOL) == TEXT
        assert second.recall_tools("srv") == [TOOL.raw]


def test_what_is_learned_later_is_merged_with_what_was_kept(file: Path) -> None:
    with memory(file) as first:
        first.learn(TOOL, {"id": 1, "name": "x"})
    with memory(file) as second:
        second.learn(TOOL, {"id": 2})
    with memory(file) as third:
        assert (third.observed(TOOL) or {})["required"] == ["id"]


def test_no_value_reaches_the_file_only_types_and_keys(file: Path) -> None:
    result: dict[str, Any] = {"password": "hunter2", "rows": [{"mail": "ada@example.com"}], "pin": 271828}
    with memory(file) as opened:
        opened.learn(TOOL, result)
        opened.learn(tool({}, "table"), {"ada@example.com": {"hunter2 x": 1}})
    written = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"password" in written and b"rows" in written
    assert b"hunter2" not in written and b"ada@" not in written and b"271828" not in written


def test_a_declared_output_is_not_learned(file: Path) -> None:
    declared = tool({}, "declared", output={"type": "object", "properties": {"a": {}, "b": {}}})
    with memory(file) as opened:
        opened.learn(declared, "text")
        assert opened.observed(declared) is None


def test_another_program_under_the_same_name_has_its_own_shapes_and_tools(file: Path) -> None:
    with memory(file) as opened:
        opened.learn(TOOL, "text")
        opened.remember_tools("srv", [TOOL.raw])
        opened.place("srv", ["another"])
        assert opened.observed(TOOL) is None and opened.recall_tools("srv") == []
        opened.place("srv", ["prog", "--flag"])
        assert opened.observed(TOOL) == TEXT


def test_rare_changes_are_still_learned_after_many_similar_results(file: Path) -> None:
    with memory(file) as opened:
        for _ in range(200):
            opened.learn(TOOL, "text")
        for _ in range(30):
            opened.learn(TOOL, None)
        assert {"type": "null"} in (opened.observed(TOOL) or {})["anyOf"]


def test_a_file_that_is_not_a_database_is_tolerated_and_left_alone(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database" * 1000)
    with memory(file) as opened:
        opened.learn(TOOL, "text")
        assert opened.observed(TOOL) == TEXT
    assert "cannot be used" in caplog.text and str(file) in caplog.text
    assert file.read_bytes() == b"not a database" * 1000


def test_damaged_pages_are_tolerated(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with memory(file) as first:
        for number in range(300):
            first.learn(tool({}, f"tool_{number}"), {f"key_{number}": "x"})
    damaged = bytearray(file.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    file.write_bytes(damaged)
    with memory(file) as second:
        assert second.observed(tool({}, "tool_1")) is None
        second.learn(TOOL, "text")
        assert second.observed(TOOL) == TEXT
    assert "cannot" in caplog.text


@pytest.mark.parametrize("value", [b"{", b"", b"[1]", b"null", b"\xff"])
def test_a_damaged_entry_is_forgotten_and_the_rest_kept(file: Path, value: bytes) -> None:
    with memory(file) as first:
        first.learn(TOOL, "text")
        first.remember_tools("srv", [TOOL.raw])
        first.learn(tool({}, "other"), "text")
    database = sqlite3.connect(file)
    with database:
        database.execute("UPDATE kept SET value = ? WHERE key NOT LIKE '%/other'", (value,))
    database.close()
    with memory(file) as second:
        assert second.observed(TOOL) is None and second.recall_tools("srv") == []
        assert second.observed(tool({}, "other")) == TEXT


def test_a_file_of_a_newer_version_is_not_touched(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with memory(file):
        pass
    database = sqlite3.connect(file)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with memory(file) as opened:
        opened.learn(TOOL, "text")
    assert "newer mcpgate" in caplog.text
    database = sqlite3.connect(file)
    assert database.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    database.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_file_is_tolerated(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with memory(file):
        pass
    for path in file.parent.iterdir():
        path.chmod(0o400)
    with memory(file) as opened:
        opened.learn(TOOL, "text")
        assert opened.observed(TOOL) == TEXT
    assert "cannot" in caplog.text


def test_a_folder_that_cannot_be_created_is_tolerated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with memory(tmp_path / "taken" / "mcpgate.sqlite3") as opened:
        opened.learn(TOOL, "text")
        assert opened.observed(TOOL) == TEXT
    assert "cannot be used" in caplog.text


def test_two_processes_share_one_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with memory(file) as one, memory(file) as two:
        one.learn(TOOL, "text")
        two.learn(tool({}, "other"), 1)
        one.flush()
        two.flush()
    with memory(file) as later:
        assert later.observed(TOOL) == TEXT
        assert later.observed(tool({}, "other")) == {"type": "integer"}
    assert caplog.text == ""


def test_the_probe_says_whether_the_store_works(file: Path) -> None:
    with memory(file) as opened:
        assert opened.probe() == ""
    store = SqliteLearnedStore(file)
    broken = Memory(store)
    store.close()
    assert "could not be read back" in broken.probe()


# --- whose keys they are

SECRET = {"alice_smith_hiv_positive": True, "iban_DE1234": 1}


def keys(shape: Any) -> set[str]:
    """Every key anywhere in a shape."""
    return {path.rpartition("/")[2] for path in keys_of(shape or {})}


def test_a_key_is_shown_to_others_only_once_two_callers_results_had_it() -> None:
    with memory(None) as opened:
        opened.learn(TOOL, {"id": 1, **SECRET}, "bob")
        assert keys(opened.observed(TOOL, "bob")) == {"id", *SECRET}
        assert opened.observed(TOOL, "eve") == {"type": "object"}
        assert opened.observed(TOOL) == {"type": "object"}
        opened.learn(TOOL, {"id": 2, "mine": "x"}, "eve")
        assert keys(opened.observed(TOOL, "eve")) == {"id", "mine"}
        assert keys(opened.observed(TOOL, "bob")) == {"id", *SECRET}
        assert keys(opened.observed(TOOL, "ann")) == {"id"}


def test_many_results_of_one_caller_do_not_make_its_keys_known_to_others() -> None:
    with memory(None) as opened:
        for _ in range(200):
            opened.learn(TOOL, SECRET, "bob")
        assert keys(opened.observed(TOOL, "eve")) == set()


def test_what_is_required_does_not_name_what_is_hidden() -> None:
    with memory(None) as opened:
        opened.learn(TOOL, {"id": 1, **SECRET}, "bob")
        opened.learn(TOOL, {"id": 1, **SECRET}, "bob")
        assert "alice" not in json.dumps(opened.observed(TOOL, "eve"))
        opened.learn(TOOL, {"id": 1}, "eve")
        assert (opened.observed(TOOL, "eve") or {})["required"] == ["id"]


@pytest.mark.parametrize(
    "value",
    [
        [SECRET],
        {"rows": [{"by": SECRET}]},
        [[SECRET, None], "x"],
        [SECRET, 1, [SECRET]],
        {f"k{i}": SECRET for i in range(100)},
    ],
)
def test_keys_are_hidden_wherever_they_stand(value: Any) -> None:
    with memory(None) as opened:
        opened.learn(TOOL, value, "bob")
        assert set(SECRET) <= keys(opened.observed(TOOL, "bob"))
        assert "alice" not in json.dumps(opened.observed(TOOL, "eve"))
        opened.learn(TOOL, value, "eve")
        assert opened.observed(TOOL, "ann") == opened.observed(TOOL, "bob")


def test_the_owners_of_keys_survive_a_restart(file: Path) -> None:
    with memory(file) as first:
        first.learn(TOOL, SECRET, "bob")
    with memory(file) as second:
        assert keys(second.observed(TOOL, "bob")) == set(SECRET)
        assert keys(second.observed(TOOL, "eve")) == set()
        second.learn(TOOL, SECRET, "eve")
    with memory(file) as third:
        assert keys(third.observed(TOOL, "ann")) == set(SECRET)


def test_what_an_earlier_version_stored_is_shown_only_where_there_are_no_keys(file: Path) -> None:
    with memory(file) as first:
        first.learn(TOOL, "text")
    row = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    database = sqlite3.connect(file)
    with database:
        database.execute("UPDATE kept SET value = ? WHERE kind = 'shape'", (json.dumps(row).encode(),))
    database.close()
    with memory(file) as second:
        assert second.observed(TOOL) == row
        assert keys(second.observed(TOOL, "bob")) == set()
        second.learn(TOOL, {"id": 1}, "bob")
        assert keys(second.observed(TOOL, "bob")) == {"id"}
        assert keys(second.observed(TOOL, "eve")) == set()
        second.learn(TOOL, {"id": 1}, "eve")
        assert keys(second.observed(TOOL, "ann")) == {"id"}


def test_a_caller_sees_its_own_keys_at_once_however_often_others_called() -> None:
    with memory(None) as opened:
        for _ in range(100):
            opened.learn(TOOL, {"id": 1}, "bob")
        opened.learn(TOOL, {"id": 1}, "eve")
        assert keys(opened.observed(TOOL, "eve")) == keys(opened.observed(TOOL, "ann")) == {"id"}


@given(st.lists(st.tuples(st.sampled_from(["bob", "eve", "ann"]), ANY_JSON), max_size=8))
def test_a_caller_sees_only_keys_of_its_own_results_or_of_two_callers(results: list[tuple[str, Any]]) -> None:
    had: dict[str, set[str]] = {"bob": set(), "eve": set(), "ann": set(), "zoe": set()}
    learned = Memory(SqliteLearnedStore(None))
    for owner, value in results:
        learned.learn(TOOL, value, owner)
        had[owner] |= set(keys_of(shape_of(value)))
    for owner, own in had.items():
        shared = {key for key in set().union(*had.values()) if sum(key in theirs for theirs in had.values()) > 1}
        assert set(keys_of(learned.observed(TOOL, owner) or {})) <= own | shared


def test_lists_are_remembered_unless_they_are_long(file: Path) -> None:
    notes = [{"uri": f"note://{number}", "name": "é"} for number in range(1000)]
    with memory(file) as first:
        assert first.recall_list("srv", "resources") is None
        first.remember_list("srv", "resources", notes)
        first.remember_list("srv", "prompts", [])
        first.remember_list("srv", "resourceTemplates", [{"uriTemplate": "x" * 256 * 1024}])
    with memory(file) as second:
        assert second.recall_list("srv", "resources") == notes
        assert second.recall_list("srv", "prompts") == [], "it is known that there are none"
        assert second.recall_list("srv", "resourceTemplates") is None
        second.remember_list("srv", "resources", [*notes, {"uri": "note://more"}])
        assert second.recall_list("srv", "resources") is None, "rather nothing than what was once"

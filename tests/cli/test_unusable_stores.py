"""A store with limits in it that cannot be used is an error of every command: memory in its place would have none."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcpgate.app import open_stores
from mcpgate.config.settings import Config
from mcpgate.errors import Unavailable
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.sqlite.governance import SqliteStore
from tests.conftest import serve_command
from tests.flows.governed import environment, mcpgate, write_config
from tests.stores.test_contract import change

COMMANDS = (["keys", "list"], ["keys", "create", "x"], ["usage"], ["check"], ["serve"])


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage!" * 2000)


def garbled_head(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"garbage!" * 20)


def garbled_inside(path: Path) -> None:
    """The head is whole, and the pages of what was declared are not."""
    with sqlite3.connect(path) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


def truncated(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: tuple[Callable[[Path], None], ...] = (garbage, garbled_head, garbled_inside, newer, truncated, a_folder)


@pytest.fixture
async def store_file(anyio_backend: str, tmp_path: Path) -> Path:
    """The default one, with a budget that the admin API made."""
    path = tmp_path / "data" / "mcpgate" / "mcpgate.sqlite3"
    store = SqliteStore(path)
    await store.change(change("none", {"id": "none", "limit_usd": "0"}, kind="budget"))
    await store.close()
    return path


def ended(tmp_path: Path, config: Path, *command: str) -> subprocess.CompletedProcess[str]:
    if command[0] != "serve":
        return mcpgate(*command, "-c", str(config), env=environment(tmp_path))
    return subprocess.run(
        serve_command(config, "--port", "0"), capture_output=True, text=True, timeout=60, env=environment(tmp_path)
    )


@pytest.mark.parametrize("damage", [garbled_head, truncated], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_goes_on_without_a_file_that_is_there(
    command: list[str], damage: Callable[[Path], None], store_file: Path, tmp_path: Path
) -> None:
    damage(store_file)
    done = ended(tmp_path, write_config(tmp_path, {}), *command)
    assert done.returncode == 1, done.stdout
    assert "the store is unusable" in done.stderr and str(store_file) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_damage_that_shows_only_when_the_file_is_read_is_an_error_without_a_traceback(
    command: list[str], store_file: Path, tmp_path: Path
) -> None:
    garbled_inside(store_file)
    done = ended(tmp_path, write_config(tmp_path, {}), *command)
    assert "Traceback" not in done.stderr
    if command != ["usage"]:  # which does not read the damaged pages
        assert done.returncode == 1 and "malformed" in done.stderr + done.stdout


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_gateway_does_not_start_over_a_damaged_file(
    damage: Callable[[Path], None], store_file: Path, tmp_path: Path
) -> None:
    damage(store_file)
    done = ended(tmp_path, write_config(tmp_path, {}), "serve")
    assert done.returncode == 1
    assert "the store is unusable" in done.stderr or "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.anyio
async def test_memory_will_do_only_for_a_gateway_and_only_where_no_store_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_text("no folder can be made here")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    stores = await open_stores(Config(), may_forget=True)
    assert isinstance(stores.store, MemoryStore)
    await stores.close()
    explicit = {"storage": {"url": f"sqlite:///{tmp_path}/data/mcpgate.sqlite3"}}
    for settings, may_forget in (({}, False), (explicit, True), ({"governance": {"require_key": True}}, True)):
        with pytest.raises(Unavailable, match="the store is unusable"):
            await open_stores(Config.model_validate(settings), may_forget=may_forget)


@pytest.mark.anyio
async def test_a_file_that_nobody_may_look_for_counts_as_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def forbidden(self: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "exists", forbidden)
    monkeypatch.setattr("mcpgate.stores.sqlite.file.sqlite3.connect", forbidden)
    with pytest.raises(Unavailable, match="does not start without it"):
        await open_stores(Config(), may_forget=True)


def test_a_gateway_without_any_file_says_that_it_will_forget(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("a file is no folder there either, and says so otherwise")
    (tmp_path / "data").write_text("no folder can be made here")
    done = mcpgate("check", "-c", str(write_config(tmp_path, {})), env=environment(tmp_path))
    assert done.returncode in (0, 1) and "the store is unusable" not in done.stderr

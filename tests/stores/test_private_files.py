"""What SQLite writes is its owner's alone."""

import logging
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpgate.stores.sqlite.file import open_file
from mcpgate.stores.sqlite.governance import SqliteStore
from tests.stores.conftest import claim, reservation, settlement

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions"),
]


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_new_file_and_what_is_beside_it_can_be_read_by_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    stores = SqliteStore(folder / "stores.sqlite3")
    held = claim()
    await stores.reserve(reservation("r1", held))
    await stores.settle([settlement("r1", held)])
    written = sorted(path.name for path in folder.iterdir())
    assert written == ["stores.sqlite3", "stores.sqlite3-shm", "stores.sqlite3-wal"]
    assert {mode_of(path) for path in folder.iterdir()} == {0o600}
    assert (mode_of(folder), mode_of(folder.parent)) == (0o700, 0o700), "every folder that was made"
    await stores.close()


async def test_a_folder_that_was_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    await SqliteStore(tmp_path / "stores.sqlite3").close()
    assert mode_of(tmp_path) == 0o755


def test_a_file_that_others_can_read_is_warned_of_once_with_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "stores.sqlite3"
    open_file(path).close()
    with caplog.at_level(logging.WARNING, "mcpgate.store"):
        open_file(path).close()
        assert not caplog.records
    other = tmp_path / "older.sqlite3"
    path.rename(other)
    other.chmod(0o644)
    with caplog.at_level(logging.WARNING, "mcpgate.store"):
        for _ in range(2):
            open_file(other).close()
        (said,) = caplog.records
    assert str(other) in said.getMessage() and "mode 644" in said.getMessage() and "chmod 600" in said.getMessage()
    assert mode_of(other) == 0o644, "and left as its owner made it"


def test_a_link_that_somebody_laid_where_the_file_will_be_is_not_followed_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "link.sqlite3").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="victim|link"):
        open_file(tmp_path / "link.sqlite3")
    assert not (tmp_path / "victim").exists()

"""What the own tasks work on: one folder with files, a database, a repository, a knowledge graph and a workbook, and a
Redis. Created once from `own_data`, reset for every task, and inspected at the end.

It uses no server: the state is created and read directly.
"""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
import weakref
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.servers import SERVERS, home_of
from benchmarks.token_savings.suites import own_data

_WORKBOOK = Path(__file__).parent / "shims" / "workbook.py"
_REDIS_START_TIMEOUT_S = 10.0
GIT_ENV = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_AUTHOR_DATE": "1767603600 +0000",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_COMMITTER_DATE": "1767603600 +0000",
    "GIT_CONFIG_GLOBAL": os.devnull,
}
"""Commits have the same hashes on every machine."""


class DeskFailed(Exception):
    """A program that the desk needs failed."""


class Desk:
    def __init__(self, folder: Path) -> None:
        self.root = (folder / "ada").resolve()
        self._template = folder / "template"
        shutil.rmtree(self._template, ignore_errors=True)
        self.root.mkdir(parents=True, exist_ok=True)
        self.redis = Redis(folder) if has_redis() else None
        self._make()

    def reset(self) -> None:
        _mirror(self._template, self.root)
        if self.redis:
            self.redis.run_all([["FLUSHALL"], *own_data.REDIS_COMMANDS])

    def close(self) -> None:
        if self.redis:
            self.redis.close()

    # Reading

    def read(self, name: str) -> str:
        """The text of a file; empty if there is none."""
        file = self.root / name
        return file.read_text() if file.is_file() else ""

    def names(self, folder: str) -> list[str]:
        path = self.root / folder
        return sorted(found.name for found in path.iterdir()) if path.is_dir() else []

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.root / "t.db")) as database:
            try:
                return database.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                return [(str(error),)]

    def git(self, *arguments: str) -> str:
        """Git's output about the repository, including errors."""
        command = ["git", "-C", str(self.root / "repo"), *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout

    def graph(self) -> list[dict[str, Any]]:
        """Entities and relations of the knowledge graph, as its server stores them."""
        return [json.loads(line) for line in self.read("memory.jsonl").splitlines()]

    def observations(self, entity: str) -> list[str]:
        found = [item["observations"] for item in self.graph() if item.get("name") == entity]
        return found[0] if found else []

    def sheet(self, file: str, name: str) -> list[list[Any]]:
        if not (self.root / file).is_file():
            return []
        book: dict[str, list[list[Any]]] = json.loads(_run_workbook("read", self.root / file))
        return book.get(name, [])

    def document(self, file: str) -> list[str]:
        """The texts of a Word document's paragraphs and cells, in order."""
        if not (self.root / file).is_file():
            return []
        with zipfile.ZipFile(self.root / file) as archive:
            xml = archive.read("word/document.xml").decode()
        paragraphs = re.findall(r"<w:p[ >].*?</w:p>", xml, re.DOTALL)
        texts = ["".join(re.findall(r"<w:t(?: [^>]*)?>([^<]*)</w:t>", paragraph)) for paragraph in paragraphs]
        return [text for text in texts if text]

    # Creating

    def _make(self) -> None:
        for name, text in own_data.FILES.items():
            file = self._template / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        with closing(sqlite3.connect(self._template / "t.db")) as database:
            database.executescript(own_data.SCHEMA)
            for table, rows in own_data.TABLES.items():
                database.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", rows)
            database.commit()
        (self._template / "memory.jsonl").write_text("\n".join(map(json.dumps, own_data.GRAPH)))
        _run_workbook("make", self._template / "budget.xlsx", json.dumps(own_data.WORKBOOK))
        self._make_repository()

    def _make_repository(self) -> None:
        repository = self._template / "repo"
        repository.mkdir()
        git = ["git", "-C", str(repository)]
        _run([*git, "init", "--quiet", "--initial-branch=main"])
        for message, files in own_data.COMMITS:
            for name, text in files.items():
                (repository / name).write_text(text)
            _run([*git, "add", "--all"])
            _run([*git, "commit", "--quiet", "--no-gpg-sign", "--message", message])


def _mirror(source: Path, target: Path) -> None:
    """Makes one folder equal to another, without touching what is the same: a server may be starting in it."""
    wanted = {path.name: path for path in source.iterdir()}
    for path in target.iterdir():
        if path.name not in wanted or path.is_dir() != wanted[path.name].is_dir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, path in wanted.items():
        copy = target / name
        if path.is_dir():
            copy.mkdir(exist_ok=True)
            _mirror(path, copy)
        elif not copy.exists() or copy.read_bytes() != path.read_bytes():
            copy.unlink(missing_ok=True)  # Git's objects are read-only.
            shutil.copy2(path, copy)


def has_redis() -> bool:
    return bool(shutil.which("redis-server") and shutil.which("redis-cli"))


class Redis:
    """A private Redis on a free port, without persistence."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        weakref.finalize(self, self._process.terminate)  # Even if nothing closes it.
        deadline = time.monotonic() + _REDIS_START_TIMEOUT_S
        while "PONG" not in subprocess.run(self._cli("PING"), capture_output=True, text=True, check=False).stdout:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise DeskFailed("redis-server did not start")
            time.sleep(0.02)

    def run(self, *command: str) -> Any:
        return json.loads(_run([*self._cli("--json"), *command]))

    def run_all(self, commands: Sequence[Sequence[str]]) -> None:
        _run(self._cli(), "\n".join(" ".join(f'"{word}"' for word in command) for command in commands))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _cli(self, *options: str) -> list[str]:
        return ["redis-cli", "-p", str(self.port), *options]


def _run_workbook(action: str, file: Path, said: str = "") -> str:
    python = home_of(SERVERS["excel"]) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return _run([str(python), str(_WORKBOOK), action, str(file)], said)


def _run(command: Sequence[str], said: str = "", env: Mapping[str, str] = GIT_ENV) -> str:
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False, env={**os.environ, **env})
    if done.returncode:
        raise DeskFailed(f"{' '.join(command)} exited with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout

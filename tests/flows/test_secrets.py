"""Searches everywhere for a key's secret. It may be in the answer that created it, and in the environment and the
file that declared it; nowhere else."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from mcpgate.config.files import parse_config
from mcpgate.config.governance import KeyConfig, KeySpec
from mcpgate.errors import ConfigError, McpgateError
from mcpgate.governance.admin import parse
from mcpgate.governance.keys import digest_of, make_key, new_secret
from tests.conftest import raw
from tests.flows.governed import (
    Served,
    bearer,
    call_of,
    environment,
    mcpgate,
    own_database,
    serving,
    wait_until,
    write_config,
)

DECLARED = "mg-declared-Rj2kf81kqPz"
OWN_WORDS = "hunter2-Correct-Horse-Battery"
WRONG = "mg-wrong-9sKq0WmZ77xLpQ"
DUMMY = "sk-proj-0123456789abcdefXYZ"
PASSWORD = "pW-of-the-database-77"


@dataclass
class Search:
    """Texts of any kind, each with its origin, and what they must not contain."""

    secrets: list[str]
    found: list[str] = field(default_factory=list)
    searched: int = 0

    def look_into(self, where: str, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.searched += 1
        for secret in self.secrets:
            # In parts too: cutting or encoding a secret must not hide it.
            if any(part in data for part in (secret.encode(), secret[3:-3].encode(), secret.encode("utf-16-le"))):
                self.found.append(f"{secret[:9]}… in {where}")

    def look_into_files(self, folder: Path) -> int:
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            self.look_into(str(path), path.read_bytes())
        return len(files)

    def look_into_processes(self, pid: int) -> int:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            self.look_into(f"cmdline of {process.pid}", Path(f"/proc/{process.pid}/cmdline").read_bytes())
        for process in family[1:]:  # child processes get none of our secrets
            if "mcpgate" not in Path(f"/proc/{process.pid}/cmdline").read_text():
                self.look_into(f"environment of {process.pid}", Path(f"/proc/{process.pid}/environ").read_bytes())
        return len(family)


def exercised(served: Served, search: Search, config: Path, env: dict[str, str]) -> None:
    """Use a gateway in every possible way, and search all its output."""
    secrets = search.secrets

    def asked(method: str, path: str, body: Any = None, key: str | None = DECLARED, **headers: str) -> httpx2.Response:
        sent = {**(bearer(key) if key else {}), **headers}
        content = None if body is None else json.dumps(body).encode()
        answer = served.clients[0].request(method, path, content=content, headers=sent)
        makes = answer.status_code in (200, 201) and ((path == "/api/keys" and method == "POST") or "rotate" in path)
        if makes:
            told = answer.json()["secret"]
            secrets.append(told)
            search.look_into(f"{method} {path} beside the secret", answer.text.replace(told, ""))
        else:
            search.look_into(f"{method} {path}", answer.text + repr(answer.headers))
        return answer

    for id in ("one", "two"):
        asked(
            "POST", "/api/keys", {"id": id, "name": f"key {id}", "grants": {"tools": "*"}, "budget": {"limit_usd": 0}}
        )
    made, second = secrets[-2:]
    asked("POST", "/api/keys", {"id": "one"})
    asked("POST", "/api/keys", {"secret": DECLARED})
    asked("POST", "/api/keys", {"nonsense": 1})
    asked("PATCH", "/api/keys/one", {"name": "renamed"})
    asked("POST", "/api/keys/two/rotate", {"overlap": "1h"})
    rotated = secrets[-1]
    for key in (None, DECLARED, OWN_WORDS, WRONG, DUMMY, made, second, rotated):
        for name, arguments in (
            ("list_tools", {}),
            ("execute_code", {"code": "import os\nraw.add(a=1, b=2)\nprint(dict(os.environ), globals())"}),
            ("raw__env", {}),
            ("raw__echo", {"text": "x"}),
            ("raw__refuse", {}),
            ("nothing", {}),
        ):
            asked("POST", "/mcp", call_of(name, arguments), key)
        asked("GET", "/api/keys", key=key)
        asked("GET", "/api/keys/one", key=None, **({"x-api-key": key} if key else {}))
        asked("POST", "/mcp", {"jsonrpc": "1.0"}, key)
    asked("GET", "/api/keys", key=None, authorization=f"Basic {DECLARED}")
    asked("GET", "/api/keys", key=None, authorization=f"{DECLARED}")
    asked("POST", "/mcp", call_of("list_tools"), **{"mcp-protocol-version": "1999-01-01"})
    asked("DELETE", "/api/keys/one")
    asked("POST", "/mcp", call_of("list_tools"), key=made)
    for path in ("/api/audit", "/api/entries", "/api/usage?by=key", "/api/keys/two", "/api/openapi.json", "/metrics",
                 "/healthz", "/readyz", "/nothing"):  # fmt: skip
        asked("GET", path)
    for arguments in (
        ("keys", "list"),
        ("keys", "list", "--format", "json"),
        ("keys", "revoke", "two", "--format", "json"),
        ("keys", "rotate", "two"),
        ("usage", "--by", "key"),
        ("check",),
    ):
        done = mcpgate(*arguments, "-c", str(config), env=env)
        search.look_into(" ".join(arguments), done.stdout + done.stderr)
    created = mcpgate("keys", "create", "by hand", "--tools", "*", "-c", str(config), env=env)
    assert created.returncode == 0, created.stderr
    (told,) = re.findall(r"mg-[\w-]{20,}", created.stdout)
    secrets.append(told)
    search.look_into("keys create", (created.stdout + created.stderr).replace(told, ""))
    served.config.write_text(served.config.read_text() + f"\n: {OWN_WORDS}\n  @{DECLARED}: [")
    wait_until(lambda: "rejected; the previous one stays active" in served.log.read_text())


def governed(**more: Any) -> dict[str, Any]:
    keys = {
        "admin": {"secret": "${ADMIN_KEY}", "grants": {"tools": "*", "admin": True}},
        "human": {"secret": OWN_WORDS, "grants": {"tools": "raw.*"}},
    }
    return {
        "governance": {"require_key": True, "keys": keys},
        "telemetry": {"log_level": "debug", "log_content": True},
        "sandbox": {"warm": 0},
        **more,
    }


def test_no_secret_is_in_logs_answers_metrics_processes_or_the_file(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = write_config(elsewhere, {"raw": raw(expose="both")}, **governed())
    folder = tmp_path / "gateway"
    search = Search([DECLARED, OWN_WORDS, WRONG, DUMMY])
    env = environment(folder, ADMIN_KEY=DECLARED)
    with serving(folder, config, env={"ADMIN_KEY": DECLARED}) as served:
        exercised(served, search, config, env)
        assert search.look_into_processes(served.process.pid) >= 2
        assert search.look_into_files(folder) >= 2  # including the log and the write-ahead log
        assert any(path.name.endswith("-wal") for path in folder.rglob("*"))
    search.look_into_files(folder)
    assert served.log.read_text().count("\n") > 1
    assert len(search.secrets) == 8 and search.searched > 100
    assert search.found == []


def test_no_secret_is_in_the_tables_of_postgres_nor_its_password_in_what_is_said(tmp_path: Path) -> None:
    with own_database() as url:
        config = write_config(
            tmp_path, {"raw": raw(expose="both")}, **governed(storage={"url": f"{url}?password={PASSWORD}"})
        )
        search = Search([DECLARED, OWN_WORDS, WRONG, PASSWORD])
        with serving(tmp_path, config, env={"ADMIN_KEY": DECLARED}) as served:
            answer = served.admin("POST", "keys", {"grants": {"tools": "*"}}, DECLARED)
            search.secrets.append(answer.json()["secret"])
            id = answer.json()["key"]["id"]
            for key in (DECLARED, WRONG, search.secrets[-1]):
                served.call("raw__echo", {"text": "x"}, key)
            search.secrets.append(served.admin("POST", f"keys/{id}/rotate", {}, DECLARED).json()["secret"])
            served.admin("DELETE", f"keys/{id}", None, DECLARED)
            done = mcpgate("keys", "list", "-c", str(config), env=environment(tmp_path, ADMIN_KEY=DECLARED))
            assert id in done.stdout
            search.look_into("keys list", done.stdout + done.stderr)
            search.look_into_processes(served.process.pid)
        search.look_into_files(tmp_path / "data")
        search.look_into("the log", served.log.read_bytes())
        tables = asyncio.run(_tables(url))
        for name, rows in tables.items():
            search.look_into(f"table {name}", rows)
        assert id in tables["records"] and "raw" in tables["entries"] and len(tables) >= 5
    assert search.found == []


async def _tables(url: str) -> dict[str, str]:
    """Everything in a database."""
    import asyncpg

    db = await asyncpg.connect(url)
    try:
        tables = await db.fetch("SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_)'")
        return {name: str(await db.fetch(f'SELECT * FROM "{schema}"."{name}"')) for schema, name in tables}
    finally:
        await db.close()


S = "mg-Secret-of-a-broken-file-31"
BROKEN = {
    "too short": "governance: {keys: {ci: {secret: Shrt-31}}}",
    "twice the same": f"governance: {{keys: {{ci: {{secret: {S}}}, di: {{secret: {S}}}}}}}",
    "key twice": f"governance: {{keys: {{ci: {{secret: {S}, secret: {S}}}}}}}",
    "with spaces": f"governance: {{keys: {{ci: {{secret: '{S} x'}}}}}}",
    "not ASCII": f"governance: {{keys: {{ci: {{secret: '{S}ü'}}}}}}",
    "a list": f"governance: {{keys: {{ci: {{secret: [{S}]}}}}}}",
    "a mapping": f"governance: {{keys: {{ci: {{secret: {{value: {S}}}}}}}}}",
    "misspelt": f"governance: {{keys: {{ci: {{secert: {S}}}}}}}",
    "not in a mapping": f"governance: {{keys: {{ci: {S}}}}}",
    "in the place of all keys": f"governance: {{keys: {S}}}",
    "begins with %": f"governance:\n  keys:\n    ci: {{secret: %{S}}}",
    "begins with @": f"governance:\n  keys:\n    ci:\n      secret: @{S}\n",
    "quote not closed": f'governance:\n  keys:\n    ci: {{secret: "{S}}}\n',
    "badly indented": f"governance:\n  keys:\n    ci:\n      secret: {S}\n     grants: {{}}\n",
    "JSON with a comma too many": f'{{"governance": {{"keys": {{"ci": {{"secret": "{S}",}},}}}}',
    "another fault beside it": f"governance: {{keys: {{ci: {{secret: {S}, budget: much}}}}}}",
    "headers as text": f"mcpServers: {{x: {{url: 'https://x.example', headers: 'Bearer {S}'}}}}",
    "store of an unknown kind": f"storage: {{url: 'mysql://user:{S}@host/db'}}",
    "counters of an unknown kind": f"storage: {{counters: 'memcache://user:{S}@host'}}",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_configuration_that_is_refused_is_not_quoted_with_its_secrets(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(text)
    shown = "".join(_all_of(refused.value))
    assert S not in shown and "Shrt-31" not in shown and S[3:-3] not in shown
    assert len(refused.value.message) > 20


def _all_of(error: BaseException | None) -> Iterator[str]:
    """The parts of an error that may reach a log: the error, and only what a traceback would show before it."""
    if error is not None:
        yield f"{error!s} {error!r}"
        if error.__cause__ is not None or not error.__suppress_context__:
            yield from _all_of(error.__cause__ or error.__context__)


@pytest.mark.parametrize("name", ["too short", "begins with @"])
def test_a_command_that_is_given_a_broken_configuration_shows_no_secret(name: str, tmp_path: Path) -> None:
    config = tmp_path / "mcpgate.yaml"
    config.write_text(BROKEN[name])
    done = mcpgate("serve", "--port", "0", "-c", str(config), env=environment(tmp_path))
    assert done.returncode == 2 and "error:" in done.stderr and "Traceback" not in done.stderr
    assert S[3:-3] not in done.stdout + done.stderr and "Shrt-31" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "storage",
    [
        {"url": f"postgresql://nobody:{PASSWORD}@127.0.0.1:1/db"},
        {"counters": f"redis://nobody:{PASSWORD}@127.0.0.1:1/1"},
    ],
)
def test_a_store_that_cannot_be_reached_is_named_without_its_password(storage: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("asyncpg" if "url" in storage else "redis")
    config = write_config(tmp_path, {}, storage=storage)
    done = mcpgate("keys", "list", "-c", str(config), env=environment(tmp_path))
    assert done.returncode == 1 and "127.0.0.1" in done.stderr and PASSWORD not in done.stdout + done.stderr


SHOWN: dict[str, Callable[[str], object]] = {
    "a configuration": lambda s: parse_config(f"governance: {{keys: {{ci: {{secret: {s}}}}}}}"),
    "its section": lambda s: parse_config(f"governance: {{keys: {{ci: {{secret: {s}}}}}}}").governance,
    "a key of it": lambda s: KeyConfig.model_validate({"secret": s}),
    "a key of it as JSON": lambda s: KeyConfig.model_validate({"secret": s}).model_dump_json(),
    "a virtual key": lambda s: make_key("ci", KeySpec(), [(digest_of(s), None)], s[-4:]),
    "a store with a password": lambda s: parse_config(f"storage: {{url: 'postgresql://u:{s}@h/db'}}"),
    "counters with a password": lambda s: parse_config(f"storage: {{counters: 'redis://u:{s}@h/1'}}"),
    "a server's headers": lambda s: parse_config(f"mcpServers: {{x: {{url: 'http://h', headers: {{a: {s}}}}}}}"),
    "a server's environment": lambda s: parse_config(f"mcpServers: {{x: {{command: c, env: {{T: {s}}}}}}}"),
}


@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
def test_what_holds_a_secret_does_not_show_it(make: Callable[[str], object]) -> None:
    secret = new_secret()
    value = make(secret)
    assert secret[3:-4] not in repr(value) + str(value)
    assert digest_of(secret) not in repr(value) + str(value)


@pytest.mark.parametrize("body", [{"secret": S}, {"grants": S}, {"limits": {S: 1}}, {"name": [S]}, {"budget": S}])
def test_what_the_admin_api_refuses_it_does_not_repeat_by_value(body: dict[str, Any]) -> None:
    with pytest.raises(McpgateError) as refused:
        parse(KeySpec, body)
    values = json.dumps(list(body.values()))
    assert S in values
    if "limits" not in body:  # an unknown name is repeated, a value is not
        assert S not in "".join(_all_of(refused.value))


def test_a_secret_is_long_and_never_the_same() -> None:
    made = {new_secret() for _ in range(1000)}
    assert len(made) == 1000 and all(len(secret) == 46 and secret.startswith("mg-") for secret in made)

"""`mcpgate keys` and `mcpgate usage` as a person or a script runs them, on a file that a gateway has or will have."""

import asyncio
import csv
import datetime
import io
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mcpgate.app import open_stores
from mcpgate.cli import words
from mcpgate.cli.main import main
from mcpgate.config.files import load_config
from mcpgate.config.governance import GovernanceConfig, KeySpec
from mcpgate.config.settings import Config
from mcpgate.governance.admin import Admin
from mcpgate.governance.policy import Policy
from mcpgate.governance.records import Entry, Saved, Usage
from mcpgate.governance.store import Change, Settlement
from tests.flows.governed import environment, mcpgate, write_config

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, {}, governance={"keys": {"in-file": {"secret": "mg-declared-in-the-file"}}})


@pytest.fixture
def run(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Commands in this process, which saves the start of many."""
    monkeypatch.setenv("XDG_DATA_HOME", environment(tmp_path)["XDG_DATA_HOME"])

    def command(*arguments: str) -> CompletedProcess[str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "-c", str(config)])
        return CompletedProcess(arguments, int(ended.value.code or 0), *capsys.readouterr())

    return command


@pytest.fixture
def processes(tmp_path: Path, config: Path) -> Run:
    """Commands as a shell runs them."""

    def command(*arguments: str) -> CompletedProcess[str]:
        return mcpgate(*arguments, "-c", str(config), env=environment(tmp_path))

    return command


def as_json(done: CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def fill(config: Config, keys: int = 0, entries: list[Entry] | None = None) -> None:
    """Put many things where commands look for them, without a command for each."""
    stores = await open_stores(config)
    admin = Admin(stores.store, stores.counters, lambda: Policy(config.governance))
    await asyncio.gather(*(admin.create_key(KeySpec(name=f"n{i}"), "test", f"k{i:05}") for i in range(keys)))
    if entries:
        await stores.counters.settle([Settlement(entry) for entry in entries])
    await stores.close()


def test_a_key_is_created_listed_rotated_and_revoked(processes: Run) -> None:
    run = processes
    made = run("keys", "create", "laptop", "--tools", "files.*", "docs.search", "--user", "ada", "--team", "search",
               "--budget", "10/1d", "--budget", "100/1M", "--rate", "100/1m", "--concurrency", "4", "--expires", "90d",
               "--ip", "10.0.0.0/8")  # fmt: skip
    assert made.returncode == 0, made.stderr
    id, secret = re.fullmatch(r"id {6}(vk_\w+)\nsecret {2}(mg-[\w-]{43})\n", made.stdout).groups()  # type: ignore[union-attr]
    assert "shown only once" in made.stderr and "--tools" not in made.stderr
    listed = run("keys", "list")
    lines = listed.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if id in line)
    assert all(part in lines[at] for part in ("laptop", f"…{secret[-4:]}", "active", "until 2"))
    assert lines[at + 1 : at + 4] == [
        "    user ada · team search · tools files.* docs.search",
        "    $10.00 a day, $10.00 left · $100.00 a month, $100.00 left",
        "    100 requests a minute, 100 left · 4 requests at once, 4 free",
    ]
    assert max(map(len, lines)) <= 80
    assert secret not in listed.stdout and "(file)" in next(x for x in listed.stdout.splitlines() if "in-file" in x)
    rotated = as_json(run("keys", "rotate", "laptop", "--overlap", "2h", "--format", "json"))
    assert rotated["id"] == id and rotated["secret"] != secret
    (shown,) = [key for key in as_json(run("keys", "list", "--format", "json")) if key["id"] == id]
    assert (shown["secrets"], shown["state"], shown["secret_ends_with"]) == (2, "active", rotated["secret"][-4:])
    ends = datetime.datetime.fromisoformat(shown["expires_at"]) - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=89) < ends <= datetime.timedelta(days=90)
    revoked = run("keys", "revoke", "laptop")
    assert (revoked.returncode, revoked.stdout) == (0, f"{id} is revoked\n")
    again = run("keys", "rotate", id)
    assert again.returncode == 1 and "was revoked; create another" in again.stderr and again.stdout == ""


async def spec_of(config: Config, id: str) -> KeySpec:
    stores = await open_stores(config)
    try:
        return (await Admin(stores.store, stores.counters, lambda: Policy(config.governance)).get_key(id))[1]
    finally:
        await stores.close()


def test_a_key_is_made_with_what_its_requests_may_say_of_themselves(run: Run, config: Path) -> None:
    made = run("keys", "create", "--users", "ada", "bot-*", "--metadata", "env=ci", "--metadata", "project=p-*",
               "--metadata", "kind=a,b=c", "--metadata", "empty=", "--format", "json")  # fmt: skip
    spec = asyncio.run(spec_of(load_config(config), as_json(made)["id"]))
    assert spec.users == ("ada", "bot-*")
    assert spec.metadata == {"env": "ci", "project": ("p-*",), "kind": ("a", "b=c"), "empty": ""}
    plain = asyncio.run(spec_of(load_config(config), as_json(run("keys", "create", "--format", "json"))["id"]))
    assert (plain.users, plain.metadata) == (None, {})


def test_a_key_without_grants_is_created_with_a_warning(run: Run) -> None:
    done = run("keys", "create", "--format", "json")
    assert set(as_json(done)) == {"id", "secret"} and "--tools '*'" in done.stderr
    revoked = as_json(run("keys", "revoke", as_json(done)["id"], "--format", "json"))
    assert revoked["state"] == "revoked" and revoked["grants"]["tools"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["keys"], 2, "ACTION"),
        (["keys", "make"], 2, "create"),
        (["keys", "create", "--metadata", "env"], 1, "NAME=VALUE"),
        (["keys", "create", "--metadata", "env=a", "--metadata", "env=b"], 1, "each name once"),
        (["keys", "create", "--metadata", "a b=c"], 1, "metadata"),
        (["keys", "revoke"], 2, "key"),
        (["keys", "create", "x", "--concurrency", "many"], 2, "--concurrency"),
        (["keys", "create", "x", "--budget", "ten"], 1, "e.g. 10/1d"),
        (["keys", "create", "x", "--budget", "ten/1d"], 1, "budget.0.limit_usd"),
        (["keys", "create", "x", "--budget", "10/1x"], 1, "1x"),
        (["keys", "create", "x", "--rate", "100"], 1, "e.g. 100/1m"),
        (["keys", "create", "x", "--expires", "someday"], 1, "expires_at"),
        (["keys", "create", "x", "--ip", "10.0.0.300"], 1, "allowed_ips.0"),
        (["keys", "revoke", "absent"], 1, "there is no key 'absent'"),
        (["keys", "revoke", "in-file"], 1, "is declared in the configuration file"),
        (["keys", "rotate", "absent", "--overlap", "1d"], 1, "there is no key 'absent'"),
        (["usage", "--by", "colour"], 1, "metadata.NAME"),
        (["usage", "--where", "key"], 1, "NAME=VALUE"),
        (["usage", "--where", "hour=5"], 1, "cannot filter by 'hour'"),
        (["usage", "--since", "someday"], 1, "a date like"),
        (["usage", "--format", "xml"], 2, "table"),
    ],
)
def test_wrong_arguments_end_with_a_code_and_a_remedy(run: Run, arguments: list[str], code: int, said: str) -> None:
    done = run(*arguments)
    assert done.returncode == code and done.stdout == "" and "Traceback" not in done.stderr
    assert said in done.stderr, done.stderr


def test_rotating_with_an_invalid_overlap_is_refused_and_the_secret_stays_valid(run: Run) -> None:
    id = as_json(run("keys", "create", "x", "--format", "json"))["id"]
    for overlap in ("soon", "9999Y"):
        done = run("keys", "rotate", id, "--overlap", overlap)
        assert done.returncode == 1 and "overlap" in done.stderr and "Traceback" not in done.stderr, done.stderr
    (key,) = [key for key in as_json(run("keys", "list", "--format", "json")) if key["id"] == id]
    assert key["secrets"] == 1


def test_a_name_that_several_keys_have_is_not_enough(run: Run, config: Path) -> None:
    ids = ["vk_1", "vk_2"]  # of a version that did not refuse the second

    async def make() -> None:
        stores = await open_stores(load_config(config))
        admin = Admin(stores.store, stores.counters, lambda: Policy(GovernanceConfig()))
        await admin.create_key(KeySpec(name="twin"), "test", ids[0])
        first = await stores.store.get_record("key", ids[0])
        assert first is not None
        await stores.store.change(Change("key", ids[1], first.value, "test", "create", 0.0))
        await stores.close()

    asyncio.run(make())
    done = run("keys", "revoke", "twin")
    assert done.returncode == 1 and "2 keys have this name; use the id" in done.stderr
    assert run("keys", "revoke", ids[0]).returncode == 0
    states = {key["id"]: key["state"] for key in as_json(run("keys", "list", "--format", "json"))}
    assert states[ids[0]] == "revoked" and states[ids[1]] == "active"


def test_a_name_is_free_again_when_its_key_is_revoked(run: Run) -> None:
    first = as_json(run("keys", "create", "ci", "--format", "json"))["id"]
    assert run("keys", "revoke", "ci").returncode == 0
    second = as_json(run("keys", "create", "ci", "--format", "json"))["id"]
    assert run("keys", "revoke", "ci").stdout == f"{second} is revoked\n" and first != second


def test_many_keys_are_all_listed(run: Run, config: Path) -> None:
    asyncio.run(fill(load_config(config), keys=1001))
    listed = {key["id"] for key in as_json(run("keys", "list", "--format", "json"))}
    assert listed == {"in-file", *(f"k{i:05}" for i in range(1001))}
    text = run("keys", "list").stdout
    assert "k01000" in text or "more" in text, "what is left out is said"


def entry(number: int, at: datetime.datetime, **facts: Any) -> Entry:
    values: dict[str, Any] = {
        **{"parent_id": None, "kind": "tool", "key": "ci", "user": "ada", "team": "search", "customer": "acme"},
        **{"server": "files", "tool": "read", "provider": None, "model": None, "outcome": "ok", "cost": 10_000_000},
        **{"usage": Usage(calls=1), "latency_ms": 1.0},
    }
    return Entry(id=f"rq_{number}", at=at.timestamp(), **{**values, **facts})


def test_usage_is_grouped_filtered_and_limited_in_time(run: Run, config: Path) -> None:
    now = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    entries = [
        entry(1, now),
        entry(2, now, user="bob", metadata={"project_id": "p,1"}, cost=None),
        entry(3, now - datetime.timedelta(days=3), tool="write", outcome="tool_error", metadata={"project_id": "p2"}),
        entry(4, now - datetime.timedelta(days=40), cost=5_000_000_000, key="old"),
    ]
    asyncio.run(fill(load_config(config), entries=entries))

    def rows(*arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = as_json(run("usage", *arguments, "--format", "json"))
        return found

    (total,) = rows()
    assert (total["tool_calls"], total["cost_usd"], total["unpriced"], total["failed"]) == (3, "0.02", 1, 1)
    assert {row["user"]: row["cost_usd"] for row in rows("--by", "user")} == {"ada": "0.02", "bob": "0"}
    by_project = {row["metadata.project_id"]: row["tool_calls"] for row in rows("--by", "metadata.project_id")}
    assert by_project == {None: 1, "p,1": 1, "p2": 1}
    (one,) = rows("--by", "key,tool", "--where", "tool=write", "--where", "metadata.project_id=p2")
    assert (one["key"], one["tool"], one["cost_usd"]) == ("ci", "write", "0.01")
    assert rows("--since", "1d")[0]["tool_calls"] == 2
    long_ago = (now - datetime.timedelta(days=50)).date().isoformat()
    assert [row["key"] for row in rows("--since", long_ago, "--until", "2099-01-01", "--by", "key")] == ["ci", "old"]
    yesterday = (now - datetime.timedelta(days=1)).isoformat()
    assert rows("--since", long_ago, "--until", yesterday)[0]["cost_usd"] == "5.01"
    assert {row["day"] for row in rows("--by", "day")} == {
        f"{e.date()}" for e in (now, now - datetime.timedelta(days=3))
    }
    text = run("usage", "--by", "user,metadata.project_id", "--format", "csv").stdout
    assert {(r["user"], r["metadata.project_id"]): r["cost_usd"] for r in csv.DictReader(io.StringIO(text))} == {
        ("ada", ""): "0.01",
        ("ada", "p2"): "0.01",
        ("bob", "p,1"): "0",
    }
    table = run("usage", "--by", "user").stdout.splitlines()
    assert table[0].split()[:2] == ["user", "requests"] and table[1].split()[0] == "ada"
    assert run("usage", "--where", "user=eve").stdout == "no usage in the last 30 days\n"
    assert "in the last day until" in run("usage", "--by", "key", "--where", "user=eve", "--since", "1d",
                                          "--until", "2099-01-01").stdout  # fmt: skip


def test_a_second_key_of_one_name_is_refused_with_the_first_ones_id(run: Run) -> None:
    first = as_json(run("keys", "create", "ci", "--format", "json"))["id"]
    done = run("keys", "create", "ci")
    assert done.returncode == 1 and f"there is already a key 'ci': {first}" in done.stderr and done.stdout == ""
    assert run("keys", "create", "in-file").returncode == 1  # the id of a key of the file
    assert len(as_json(run("keys", "list", "--format", "json"))) == 2


def test_reports_take_and_show_the_names_of_keys(run: Run, config: Path) -> None:
    id = as_json(run("keys", "create", "ci", "--format", "json"))["id"]
    now = datetime.datetime.now(datetime.UTC)
    saved = Saved(definition_tokens=2_000_000, result_tokens=345_678)
    entries = [entry(1, now, key=id, saved=saved), entry(2, now, key="gone", user=None), entry(3, now, key="in-file")]
    asyncio.run(fill(load_config(config), entries=entries))
    (row,) = as_json(run("usage", "--by", "key,day", "--where", "key=ci", "--format", "json"))
    assert (row["key"], row["key_name"], row["tool_calls"]) == (id, "ci", 1)
    (row,) = csv.DictReader(io.StringIO(run("usage", "--by", "key", "--where", f"key={id}", "--format", "csv").stdout))
    assert (row["key"], row["key_name"]) == (id, "ci")
    table = run("usage", "--by", "key,user,day,metadata.env").stdout.splitlines()
    assert any(line.startswith(f"ci ({id})") for line in table) and any(line.startswith("gone ") for line in table)
    assert max(map(len, table)) <= 80
    assert "files.read " in run("usage", "--by", "tool").stdout
    total = run("usage").stdout
    assert total.startswith("In the last 30 days:\n") and max(map(len, total.splitlines())) <= 80
    assert re.search(r"tool calls +3\n", total) and re.search(r"cost +\$0.03\n", total)
    assert re.search(r"tokens saved +2.3 million   2.0 million of definitions, 345,678 of results\n", total)
    assert "no usage" in run("usage", "--where", "key=nobody").stdout


@pytest.mark.parametrize(("usd", "shown"), [("0", "$0.00"), ("0.000123", "$0.00012"), ("1234.5", "$1,234.50")])
def test_small_sums_of_money_stay_visible(usd: str, shown: str) -> None:
    assert words.dollars(usd) == shown


def test_a_file_of_an_earlier_version_is_migrated_with_its_counts(run: Run, tmp_path: Path) -> None:
    """Version 2 kept one number a day and name, in `tallies`."""
    path = Path(environment(tmp_path)["XDG_DATA_HOME"]) / "mcpgate" / "mcpgate.sqlite3"
    path.parent.mkdir(parents=True)
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    db = sqlite3.connect(path)
    db.executescript(f"""
        CREATE TABLE kept (kind TEXT, key TEXT, value BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (kind, key))
            WITHOUT ROWID;
        CREATE TABLE tallies (day TEXT, name TEXT, amount INTEGER NOT NULL, PRIMARY KEY (day, name)) WITHOUT ROWID;
        INSERT INTO tallies VALUES ('{yesterday}', 'requests', 7), ('{yesterday}', 'executions', 5),
            ('{yesterday}', 'tool_calls', 11), ('{yesterday}', 'failed_executions', 2),
            ('{yesterday}', 'definition_tokens_saved', 1234), ('{yesterday}', 'result_tokens_saved', 4321);
        PRAGMA user_version = 2;
    """)
    db.close()
    (row,) = as_json(run("usage", "--by", "day", "--format", "json"))
    assert (row["day"], row["requests"], row["executions"], row["tool_calls"]) == (str(yesterday), 7, 5, 11)
    assert (row["failed"], row["definition_tokens_saved"], row["result_tokens_saved"]) == (2, 1234, 4321)
    assert as_json(run("keys", "create", "after", "--tools", "*", "--format", "json"))["secret"].startswith("mg-")
    assert "11" in run("usage").stdout  # once, and not again with every start

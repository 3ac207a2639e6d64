"""One configuration file in, settings out; every error is named, with a remedy.
The example file is tested in test_docs.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from mcpgate.config.environment import child_environment
from mcpgate.config.files import find_config, load_config, parse_config
from mcpgate.config.settings import Config, needs_key
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import ConfigError


def refusal(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "mcpgate.yaml", environ)
    return caught.value.message


def entry(**fields: Any) -> UpstreamConfig:
    return parse_config(json.dumps({"mcpServers": {"it": fields}})).mcpServers["it"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mcpServer: {}", "unknown key `mcpServer`; did you mean `mcpServers`?"),
        ("sandbox: {memory: 1}", "unknown key `sandbox.memory`; did you mean `memory_mib`?"),
        ("sandbox: {timeout: 1}", "unknown key `sandbox.timeout`; did you mean `timeout_s`?"),
        (
            "mcpServers: {a: {command: x, max_concurency: 1}}",
            "unknown key `mcpServers.a.max_concurency`; did you mean `max_concurrency`?",
        ),
        (
            "mcpServers: {a: {command: x, tools: {alow: []}}}",
            "unknown key `mcpServers.a.tools.alow`; did you mean `allow`?",
        ),
        ("storage: {qqq: 1}", "unknown key `storage.qqq`; known keys: counters, url"),
    ],
)
def test_a_misspelt_key_names_the_nearest_known_one(text: str, expected: str) -> None:
    assert refusal(text) == f"mcpgate.yaml: {expected}"


def test_every_wrong_key_is_named_at_once() -> None:
    assert refusal("sandbox: {memory: 1}\ncode_mode: {limit: 1}").count("did you mean") == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sandbox: {memory_mib: 8}", "sandbox.memory_mib: must be greater than or equal to 96 (it is 8)"),
        ("sandbox: {timeout_s: 0}", "sandbox.timeout_s: must be greater than 0 (it is 0)"),
        ("sandbox: {timeout_s: .nan}", "sandbox.timeout_s: "),
        ("telemetry: {log_level: loud}", "telemetry.log_level: must be 'debug', 'info', 'warning' or 'error'"),
        ("server: {port: http}", "server.port: "),
        (
            "storage: {url: 'mysql://x'}",
            "storage.url: must be sqlite:///relative, sqlite:////absolute/path or postgresql://",
        ),
        ("mcpServers: {a: {}}", "mcpServers.a: needs either `command`"),
        ("mcpServers: {a: {command: x, url: 'http://x'}}", "mcpServers.a: needs either `command`"),
        ("mcpServers: {a: {url: 'ftp://x'}}", "mcpServers.a: url is 'ftp://x'; it must begin with http://"),
        ("mcpServers: {a: {url: 'http://x', type: stdio}}", "for a `url`, use 'http' or 'sse'"),
        ("mcpServers: {a: {command: x, type: sse}}", "for a `command`, use 'stdio'"),
        ("mcpServers: {a: {command: x, type: pigeon}}", "mcpServers.a.type: must be 'stdio', 'http' or 'sse'"),
        ("mcpServers: {a: {command: x, env: {A: true}}}", "mcpServers.a.env.A: must be text; put it in quotes"),
        ("mcpServers: {' ': {command: x}}", "server name ' ' must be 1–128 printable characters"),
        ("mcpServers: [a]", "mcpServers: must be a mapping of names to values"),
        ("[1, 2]", "must be a mapping with keys such as `mcpServers`, not a list"),
        ("mcpServers: {a: {command: [", "not valid YAML"),
        ("a: &a\n  b: *a", "an alias contains itself"),
        ("[" * 1500, "nested too deeply"),
        ("1: 2", "unknown key `1`"),
        ("mcpServers: {a: {command: x, args: '-y foo'}}", "mcpServers.a.args: must be a list of arguments, e.g. ["),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_it_must_be(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_a_missing_variable_names_the_key_the_variable_and_the_way_out() -> None:
    text = "mcpServers: {a: {command: x, args: [--key, '${SECRET_KEY}']}}"
    assert refusal(text) == (
        "mcpgate.yaml: mcpServers.a.args[1] needs the environment variable SECRET_KEY, which is not set "
        "(set it, or write ${SECRET_KEY:-default})"
    )


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("${A}", {"A": ""}, ""),
        ("${env:A}", {"A": "x"}, "x"),
        ("${A:-y}", {"A": "x"}, "x"),
        ("${A:-y}", {"A": ""}, "y"),
        ("${A:-y}", {}, "y"),
        ("${A:-}", {}, ""),
        ("${A:-http://h:1/p?q=-}", {}, "http://h:1/p?q=-"),
        ("a ${A} ${B:-b} c", {"A": "x"}, "a x b c"),
        ("${A}", {"A": "${B}"}, "${B}"),
        ("$A ${} ${1} $$", {}, "$A ${} ${1} $$"),
    ],
)
def test_variables_and_their_defaults_are_filled_in(written: str, environ: dict[str, str], expected: str) -> None:
    text = json.dumps({"mcpServers": {"a": {"command": "x", "env": {"V": written}}}})
    assert parse_config(text, "c", environ).mcpServers["a"].env == {"V": expected}


def test_a_variable_may_stand_for_a_number() -> None:
    assert parse_config("server: {port: '${PORT:-9000}'}", "c", {}).server.port == 9000


@pytest.mark.parametrize(
    "text",
    [
        "sandbox: {cpu_s: 1, cpu_s: 2}",
        "sandbox: {cpu_s: 1}\nsandbox: {warm: 1}",
        'sandbox:\n  "cpu_s": 1\n  cpu_s: 2',
        '{"sandbox": {"cpu_s": 1, "cpu_s": 2}}',
    ],
)
def test_a_duplicate_key_is_an_error(text: str) -> None:
    assert "duplicate" in refusal(text)


def test_anchors_and_merges_work_and_may_override() -> None:
    text = "mcpServers:\n  a: &a {command: x, cwd: /a}\n  b: {<<: *a, cwd: /b}\n  c: {<<: [*a], command: z}\n"
    servers = parse_config(text).mcpServers
    assert [(s.command, s.cwd) for s in servers.values()] == [("x", "/a"), ("x", "/b"), ("z", "/a")]


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_works_with_tabs_and_escapes_and_means_the_same_as_yaml(indent: int | str | None) -> None:
    data = {"mcpServers": {"a": {"url": "https://x.test/mcp", "description": "😀 é"}}, "sandbox": {"cpu_s": 3}}
    text = json.dumps(data, indent=indent).replace("/", "\\/")
    config = parse_config(text)
    assert config == parse_config(
        'mcpServers: {a: {url: "https://x.test/mcp", description: "😀 é"}}\nsandbox: {cpu_s: 3}'
    )
    assert parse_config("\ufeff" + text) == config


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}"])
def test_an_empty_file_is_the_defaults(text: str) -> None:
    assert parse_config(text) == Config()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"command": "npx", "args": ["-y", "x"]}, {"command": "npx", "args": ("-y", "x"), "type": None}),
        ({"type": "stdio", "command": "npx"}, {"command": "npx", "type": "stdio"}),
        ({"type": "local", "command": "npx"}, {"type": "stdio"}),
        ({"type": "http", "url": "http://x"}, {"url": "http://x", "type": "http"}),
        ({"type": "streamable-http", "url": "http://x"}, {"type": "http"}),
        ({"type": "streamableHttp", "url": "http://x"}, {"type": "http"}),
        ({"transport": "streamable_http", "url": "http://x"}, {"type": "http"}),
        ({"transport": "SSE", "url": "http://x"}, {"type": "sse"}),
        ({"serverUrl": "http://x"}, {"url": "http://x"}),
        ({"httpUrl": "http://x", "headers": {"N": 1}}, {"url": "http://x", "headers": {"N": "1"}}),
        ({"command": "x", "env": {"PORT": 8080, "RATIO": 0.5}}, {"env": {"PORT": "8080", "RATIO": "0.5"}}),
        ({"command": "x", "disabled": True}, {"disabled": True}),
    ],
)
def test_entries_are_read_as_claude_cursor_and_vs_code_write_them(
    fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    read = entry(**fields)
    assert {key: getattr(read, key) for key in expected} == expected


def test_vs_codes_name_for_the_servers_is_understood() -> None:
    assert list(parse_config('{"servers": {"a": {"command": "x"}}}').mcpServers) == ["a"]


def test_a_child_gets_a_minimal_environment_and_never_the_gateways_secrets() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/home/ada",
        "LANG": "C.UTF-8",
        "OPENAI_API_KEY": "sk-secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MCPGATE_CONFIG": "/etc/mcpgate.yaml",
        "LD_PRELOAD": "/tmp/evil.so",
        "PYTHONPATH": "/tmp",
        "SHELL": "() { :; }; echo exported function",
    }
    config = entry(command="x", env={"TOKEN": "own", "PATH": "/own/bin"})
    assert child_environment(config, environ) == {
        "PATH": "/own/bin",
        "HOME": "/home/ada",
        "LANG": "C.UTF-8",
        "TOKEN": "own",
    }


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    config = parse_config("")
    with pytest.raises(ValueError, match="frozen"):
        config.sandbox.cpu_s = 1.0


def test_the_file_is_the_given_one_else_the_variables_else_the_folders_else_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, user = tmp_path / "here", tmp_path / "config"
    (user / "mcpgate").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user))
    with pytest.raises(ConfigError, match=r"looked for mcpgate\.yaml in .* let `mcpgate import` write it"):
        find_config(None, {})
    for path in (user / "mcpgate" / "mcpgate.json", here / "mcpgate.yml", tmp_path / "named.yaml", tmp_path / "given"):
        path.write_text("{}")
    assert find_config("../given", {"MCPGATE_CONFIG": "../named.yaml"}) == Path("../given")
    assert find_config(None, {"MCPGATE_CONFIG": "../named.yaml"}) == Path("../named.yaml")
    assert find_config(None, {}) == here / "mcpgate.yml"
    (here / "mcpgate.yml").unlink()
    assert find_config(None, {}) == user / "mcpgate" / "mcpgate.json"
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        find_config("nowhere.yaml", {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.yaml", "missing.yaml", "."):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(tmp_path / name)


def test_keys_that_only_concern_a_client_may_stay_in_a_pasted_entry() -> None:
    text = "mcpServers: {x: {command: ls, autoApprove: [a], alwaysAllow: [], trust: true}}"
    assert parse_config(text, "f", {}).mcpServers["x"].command == "ls"


def test_a_disabled_server_needs_no_secrets() -> None:
    text = 'mcpServers: {x: {url: "https://x.example", disabled: true, headers: {A: "${NOT_SET}"}}}'
    assert parse_config(text, "f", {}).mcpServers["x"].disabled


@pytest.mark.parametrize(
    ("governance", "host", "needed"),
    [
        ("{}", "127.0.0.1", False),
        ("{keys: {ci: {secret: mg-some-secret}}}", "127.0.0.1", True),
        ("{keys: {ci: {secret: mg-some-secret}}, require_key: false}", "127.0.0.1", False),
        ("{require_key: true}", "localhost", True),
        ("{}", "0.0.0.0", True),
    ],
)
def test_a_gateway_whose_file_declares_keys_asks_for_keys(governance: str, host: str, needed: bool) -> None:
    assert needs_key(parse_config(f"governance: {governance}"), host) is needed


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"store": "memory"}, "set storage.url, and no cache.store"),
        ({"encryption_key": "a key of sixteen characters"}, "exclude each other"),
    ],
)
def test_questions_are_searched_in_the_store_only_where_it_can_and_may(more: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(json.dumps({"cache": {"semantic": {"index": "store"}, **more}}))

"""An error in one server's entry affects only that server; values keep their spelling."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mcpgate.config.files import load_config, parse_config
from mcpgate.config.settings import Config
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import ConfigError
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.lifecycle import watch
from tests.conftest import gateway, raw, until

GOOD = "good: {command: ls}"


def tolerant(entry: str, environ: dict[str, str] | None = None) -> Config:
    return parse_config(f"mcpServers:\n  {GOOD}\n  bad: {entry}\n", "mcpgate.yaml", environ or {}, tolerant=True)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("{url: 'https://h/mcp', headers: {Authorization: 'Bearer ${PAT}'}}", "PAT is not set"),
        ("{command: x, env: {A: '${ONE}', B: '${TWO}', C: '${ONE}'}}", "ONE and TWO are not set"),
        ("{command: '${ONE}', args: ['${TWO}'], cwd: '${THREE}'}", "ONE, TWO and THREE are not set"),
        ("{command: x, timeout: 3}", "unknown key `mcpServers.bad.timeout`; did you mean `timeout_s`?"),
        ("{command: x, url: 'http://h'}", "needs either `command`"),
        ("{url: 'ftp://h'}", "must begin with http:// or https://"),
        ("a string", "mcpServers.bad"),
        ("[1]", "mcpServers.bad"),
        ("null", "mcpServers.bad"),
    ],
)
def test_a_faulty_entry_leaves_its_server_unusable_and_the_others_as_they_are(entry: str, reason: str) -> None:
    config = tolerant(entry)
    assert list(config.mcpServers) == ["good", "bad"], "in the order of the file"
    assert config.mcpServers["good"].command == "ls" and not config.mcpServers["good"].unusable
    assert reason in config.mcpServers["bad"].unusable
    with pytest.raises(ConfigError):
        parse_config(f"mcpServers: {{bad: {entry}}}", "mcpgate.yaml", {})


def test_a_fault_outside_of_servers_is_one_of_the_whole_file() -> None:
    for text in ("server: {port: x}", "governance: {keys: {ci: {}}}", "mcpServers: [1]", "mcpServers: {'': {}}"):
        with pytest.raises(ConfigError):
            parse_config(text, "mcpgate.yaml", {}, tolerant=True)


def test_no_secret_of_a_faulty_entry_is_in_its_reason() -> None:
    entry = "{command: x, env: {TOKEN: [sk-very-secret]}, headers: {A: {b: sk-very-secret}}, args: {c: sk-very-secret}}"
    assert "sk-very-secret" not in tolerant(entry).mcpServers["bad"].unusable


@pytest.mark.anyio
async def test_a_gateway_with_an_unusable_server_works_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    broken = parse_config("mcpServers: {hub: {command: x, env: {T: '${HUB_TOKEN}'}}}", "f", {}, tolerant=True)
    async with gateway({"raw": raw(), "hub": broken.mcpServers["hub"]}) as opened:
        listing = await opened.metatools.list_tools(RequestContext(LOCAL))
        assert "HUB_TOKEN is not set" in listing and "raw (" in listing
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), "hub.anything()")
        assert answer.is_error and "HUB_TOKEN is not set" in answer.text
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), "raw.add(a=1, b=2)['sum']")).text == "3"


YAML = "mcpServers: {s: {command: x, args: [--port, 8080, 1.10], env: {V: 1.10, M: 0755, T: 12:30, H: 0x1F }}}"


def test_scalars_of_env_headers_and_args_keep_their_spelling() -> None:
    server = parse_config(YAML).mcpServers["s"]
    assert server.args == ("--port", "8080", "1.10")
    assert server.env == {"V": "1.10", "M": "0755", "T": "12:30", "H": "0x1F"}


def test_names_keep_their_spelling_too() -> None:
    config = parse_config("mcpServers: {on: {command: x, env: {NO: 1, 1.10: y}}}\ngovernance: {users: {007: {}}}")
    assert config.mcpServers["on"].env == {"NO": "1", "1.10": "y"} and list(config.governance.users) == ["007"]


def test_numbers_elsewhere_stay_numbers() -> None:
    config = parse_config("{mcpServers: {s: {command: x, timeout_s: 1.5}}, server: {port: 0x1F}}")
    assert (config.mcpServers["s"].timeout_s, config.server.port) == (1.5, 31)


@pytest.mark.parametrize("number", ["1.10", "100", "1e3"])
def test_numbers_of_a_json_file_keep_their_spelling_too(number: str) -> None:
    text = f'{{"mcpServers": {{"s": {{"command": "x", "env": {{"V": {number}}}}}}}}}'
    assert parse_config(text).mcpServers["s"].env == {"V": number}


def test_a_configuration_may_be_json_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "mcpgate.json"
    file.write_text('// ours\n{"mcpServers": {/* one */ "s": {"command": "x", "args": ["//a", "/*b*/"],},}, }\n')
    assert load_config(file).mcpServers["s"].args == ("//a", "/*b*/")


def test_settings_show_what_is_wrong_and_compare_by_it() -> None:
    one: Any = tolerant("{command: x, env: {A: '${ONE}'}}")
    two: Any = tolerant("{command: x, env: {A: '${TWO}'}}")
    assert one != two and one == tolerant("{command: x, env: {A: '${ONE}'}}")


@pytest.mark.anyio
async def test_servers_with_the_same_name_in_python_are_both_unusable_and_the_reason_names_both() -> None:
    async with gateway({"brave-search": raw(), "brave_search": raw(), "other": raw()}) as opened:
        reasons = {view.name: view.reason for view in opened.pool.views()}
        for name in ("brave-search", "brave_search"):
            assert "'brave-search' and 'brave_search'" in reasons[name] and "rename one" in reasons[name]
        assert not reasons["other"]
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), "brave_search.add(a=1, b=2)")
        assert answer.is_error and "rename one" in answer.text


@pytest.mark.anyio
async def test_an_edit_that_makes_names_clash_leaves_the_incumbent_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mcpgate.yaml"
    entry = raw()

    def write(*names: str) -> None:
        file.write_text(json.dumps({"mcpServers": {name: entry for name in names}}))

    write("brave-search")
    async with gateway({"brave-search": entry}) as opened:
        watching = asyncio.create_task(watch(opened, file))
        try:
            await asyncio.sleep(0)  # the watch has begun
            write("brave_search", "brave-search")
            await until(lambda: "the same name in Python" in caplog.text)
            answer = await opened.metatools.execute_code(RequestContext(LOCAL), "brave_search.add(a=1, b=2)['sum']")
            assert answer.text == "3"
            assert {view.name for view in opened.pool.views()} == {"brave-search"}
        finally:
            watching.cancel()


def test_how_to_sign_in_is_one_word_or_an_object() -> None:
    url = {"url": "https://x.test/mcp"}
    assert UpstreamConfig.model_validate(url).auth is None
    found = UpstreamConfig.model_validate({**url, "auth": "oauth"}).auth
    assert found is not None and (found.type, found.per, found.scopes) == ("oauth", "gateway", ())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"command": "x", "auth": "oauth"}, "`auth` needs `url`"),
        ({"url": "https://x.test", "auth": "oauth", "headers": {"authorization": "x"}}, "both `auth` and a header"),
        ({"url": "https://x.test", "auth": "basic"}, "auth.type: .*'oauth'"),
        ({"url": "https://x.test", "auth": {"type": "client_credentials", "client_id": "c"}}, "needs `client_secret`"),
        ({"url": "https://x.test", "auth": {"type": "private_key_jwt"}}, "needs `client_id`"),
        (
            {"url": "https://x.test", "auth": {"type": "client_credentials", "client_id": "c", "client_secret": "secret-value",
                                               "per": "user"}},
            "cannot be `per: user`",
        ),
        ({"url": "https://x.test", "auth": {"issuer": "auth.test"}}, "must be an address"),
        ({"url": "https://x.test", "auth": {"scope": "a"}}, "unknown key `mcpServers.x.auth.scope`; did you mean `scopes`"),
    ],
)  # fmt: skip
def test_a_way_to_sign_in_that_cannot_work_is_explained(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse_config(json.dumps({"mcpServers": {"x": entry}}))
    assert "secret-value" not in str(refused.value)

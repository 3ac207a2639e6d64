"""Real agents through both faces at once: mcpgate is their provider and their only MCP server. Behind it a scripted model
calls execute_code, then a direct tool, and says what that has returned.

`python -m tests.agents.programs` installs the agents. A test skips where its agent is neither installed nor on the PATH,
but not in CI. A wall in place of the internet sees that no agent asks for anything outside of this machine."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.agents.programs import command_of, environment_of
from tests.agents.wall import wall
from tests.conftest import full, serve_command
from tests.flows.governed import ADMIN, TRUSTED, Served, mcpgate, serving, write_config
from tests.scripted_model import ScriptedModel, Step, scripted_model

LOOP = (Step("execute_code", {"code": "print(40 + 2, one.log())"}), Step("one__log", {}))
GEMINI = "/v1beta/models/gemini-3-three:streamGenerateContent?alt=sse"
SAID = "The last tool said: "
CODEX_ALONE = (
    'web_search = "disabled"\ncheck_for_update_on_startup = false\n'
    "[features]\nplugins = false\napps = false\nremote_plugin = false\n[analytics]\nenabled = false\n"
)
"""The rest of the first table of Codex' configuration, and others: it asks nobody but its provider and its servers."""


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with scripted_model(*LOOP) as running:
        yield running


@pytest.fixture
def at_resources() -> Iterator[ScriptedModel]:
    """A model that looks for resources."""
    with scripted_model(Step("list_mcp_resources", {}), Step("read_mcp_resource", {"uri": "note://one"})) as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("agents")
    keys = {"admin": {**TRUSTED["admin"], "grants": {"tools": ["*"], "models": ["*"], "admin": True}}}
    llm = {
        "providers": {
            "claude": {"type": "anthropic", "base_url": model.address},
            "open": {"type": "openai", "base_url": f"{model.address}/v1"},
            "google": {"type": "gemini", "base_url": model.address},
        },
        "models": {
            "claude-one": {"targets": [{"target": "claude/one"}]},
            "claude-two": {"targets": [{"target": "open/two"}]},
            "gemini-3-three": {"targets": [{"target": "google/gemini-3-three"}]},
        },
        "unknown_model": "claude-two",
    }
    with serving(folder, write_config(folder, {"one": full("one")}, governance={"keys": keys}, llm=llm)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(model: ScriptedModel) -> None:
    model.seen.clear()


def run(program: str, *arguments: str, folder: Path, **environment: str) -> str:
    """What an agent writes to stdout, at home in a folder of its own."""
    with wall() as outside:
        result = subprocess.run(
            [*command_of(program), *arguments],
            cwd=folder,
            env=environment_of(folder, outside, KEY=ADMIN, **environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert result.returncode == 0, result.stderr[-3000:]
    assert outside.asked == []
    return result.stdout


def results_of(model: ScriptedModel) -> str:
    """What the provider was told in the last request of the loop, as JSON."""
    return json.dumps(model.posts()[-1].body)


@pytest.mark.parametrize(
    ("name", "path"),
    [("claude-one", "/v1/messages"), ("claude-two", "/v1/chat/completions"), ("gemini-3-three", GEMINI)],
)
def test_claude_code_runs_its_loop(name: str, path: str, served: Served, model: ScriptedModel, tmp_path: Path) -> None:
    server = {"type": "http", "url": f"{served.address}/mcp", "headers": {"Authorization": f"Bearer {ADMIN}"}}
    servers = tmp_path / "mcp.json"
    servers.write_text(json.dumps({"mcpServers": {"mcpgate": {**server, "alwaysLoad": True}}}))
    said = run(
        *("claude", "-p", "go", "--model", name, "--allowedTools", "mcp__mcpgate"),
        *("--strict-mcp-config", "--mcp-config", str(servers)),
        folder=tmp_path,
        ANTHROPIC_BASE_URL=served.address,
        ANTHROPIC_AUTH_TOKEN=ADMIN,
        ENABLE_TOOL_SEARCH="false",
    )
    assert SAID + "logged" in said
    assert urlsplit(model.posts()[-1].path).path == urlsplit(path).path and "42 logged" in results_of(model)


@pytest.mark.parametrize(
    ("name", "own_name", "path"),
    [
        *(("open/two", own, "/v1/responses") for own in (True, False)),
        *(("claude-one", own, "/v1/messages") for own in (True, False)),
        ("gemini-3-three", True, GEMINI),
    ],
)
def test_codex_runs_its_loop_over_http_and_over_a_websocket(
    name: str, own_name: bool, path: str, served: Served, model: ScriptedModel, tmp_path: Path
) -> None:
    """Codex dials a WebSocket where mcpgate stands at the place of OpenAI, and none for providers of other names."""
    base = f"{served.address}/v1"
    provider = f'[model_providers.gate]\nname = "gate"\nbase_url = "{base}"\nenv_key = "KEY"\n'
    (tmp_path / "config.toml").write_text(
        f'model = "{name}"\n'
        + ('model_provider = "gate"\n' if own_name else f'openai_base_url = "{base}"\n')
        + CODEX_ALONE
        + (provider if own_name else "")
        + f'[mcp_servers.mcpgate]\nurl = "{served.address}/mcp"\nbearer_token_env_var = "KEY"\n'
    )
    (tmp_path / "auth.json").write_text(json.dumps({"OPENAI_API_KEY": ADMIN}))
    said = run(
        *("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "go"),
        folder=tmp_path,
        CODEX_HOME=str(tmp_path),
    )
    assert SAID in said and "logged" in said
    assert model.posts()[-1].path == path and "42 logged" in results_of(model)


@pytest.mark.parametrize(
    ("package", "name", "path"),
    [
        ("@ai-sdk/openai-compatible", "claude-one", "/v1/messages"),
        ("@ai-sdk/openai-compatible", "claude-two", "/v1/chat/completions"),
        ("@ai-sdk/openai-compatible", "gemini-3-three", GEMINI),
        ("@ai-sdk/anthropic", "claude-one", "/v1/messages"),
        ("@ai-sdk/anthropic", "claude-two", "/v1/chat/completions"),
    ],
)
def test_opencode_runs_its_loop(
    package: str, name: str, path: str, served: Served, model: ScriptedModel, tmp_path: Path
) -> None:
    options = {"baseURL": f"{served.address}/v1", "apiKey": ADMIN}
    server = {"type": "remote", "url": f"{served.address}/mcp", "headers": {"Authorization": f"Bearer {ADMIN}"}}
    settings: dict[str, Any] = {
        "autoupdate": False,
        "provider": {"gate": {"npm": package, "name": "gate", "options": options, "models": {name: {}}}},
        "mcp": {"mcpgate": {**server, "oauth": False}},
    }
    (tmp_path / "opencode.json").write_text(json.dumps(settings))
    said = run("opencode", "run", "-m", f"gate/{name}", "go", folder=tmp_path)
    assert SAID + "logged" in said
    assert any(one.path == path and "42 logged" in json.dumps(one.body) for one in model.posts())


@contextmanager
def once_asked(model: ScriptedModel, file: Path) -> Iterator[None]:
    """Makes a file as soon as the model is asked for the first time."""
    over = threading.Event()

    def wait() -> None:
        while not model.posts() and not over.wait(0.02):
            pass
        file.touch()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_an_agent_that_asks_once_shows_the_tools_of_a_server_that_was_connected_before(
    agent: str, model: ScriptedModel, tmp_path: Path
) -> None:
    """Over stdio, with a server that starts only after the agent has asked its model. `required`: Codex asks its model
    without waiting for the gateway else, if that takes more than a second to start."""
    command_of(agent)
    go = tmp_path / "go"
    config = write_config(tmp_path, {"one": full("one", expose="both", env={"WAIT_FOR": str(go)})})
    program, *arguments = serve_command(config, "--stdio")
    own = {"XDG_DATA_HOME": str(tmp_path / "data"), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    go.touch()
    first = mcpgate(
        "run", "-c", str(config), "-", env={**os.environ, **own}, stdin="one.resources(); one.prompts(); one.log()"
    )
    assert first.stdout == "logged\n", first.stderr
    go.unlink()
    server = {"command": program, "args": arguments, "env": own}
    with once_asked(model, go):
        if agent == "claude":
            (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"mcpgate": server}}))
            said = run(
                *("claude", "-p", "go", "--model", "one", "--allowedTools", "mcp__mcpgate"),
                *("--strict-mcp-config", "--mcp-config", str(tmp_path / "mcp.json")),
                folder=tmp_path,
                ANTHROPIC_BASE_URL=model.address,
                ANTHROPIC_AUTH_TOKEN="none",
                ENABLE_TOOL_SEARCH="false",
                MCP_TIMEOUT="60000",
            )
        else:
            inner = "".join(f"{name} = {json.dumps(value)}\n" for name, value in own.items())
            (tmp_path / "config.toml").write_text(
                f'model = "one"\nopenai_base_url = "{model.address}/v1"\n{CODEX_ALONE}'
                f"[mcp_servers.mcpgate]\ncommand = {json.dumps(program)}\nargs = {json.dumps(arguments)}\n"
                "startup_timeout_sec = 60\nrequired = true\n"
                f"[mcp_servers.mcpgate.env]\n{inner}"
            )
            (tmp_path / "auth.json").write_text(json.dumps({"OPENAI_API_KEY": "none"}))
            said = run(
                *("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "go"),
                folder=tmp_path,
                CODEX_HOME=str(tmp_path),
            )
    assert SAID in said and "logged" in said
    assert "42 logged" in results_of(model)


def gemini(
    prompt: str, served: Served, folder: Path, address: str, key: str = "none", name: str = "gemini-2.5-flash"
) -> str:
    """What Gemini CLI says; the gateway is its only MCP server. `address`: of its provider."""
    server = {"httpUrl": f"{served.address}/mcp", "headers": {"Authorization": f"Bearer {ADMIN}"}, "trust": True}
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
        "mcpServers": {"mcpgate": server},
    }
    (folder / ".gemini").mkdir()
    (folder / ".gemini" / "settings.json").write_text(json.dumps(settings))
    return run(
        *("gemini", "-m", name, "--approval-mode", "yolo", "--skip-trust", "-p", prompt),
        folder=folder,
        GEMINI_API_KEY=key,
        GOOGLE_GEMINI_BASE_URL=address,
    )


def said_by_the_user(model: ScriptedModel) -> list[str]:
    (content,) = model.posts()[0].body["contents"]
    return [part["text"] for part in content["parts"]]


def test_gemini_cli_calls_tools(served: Served, model: ScriptedModel, tmp_path: Path) -> None:
    assert SAID in gemini("go", served, tmp_path, model.address)
    assert "42 logged" in results_of(model) and "mcp_mcpgate_one__log" in results_of(model)


def test_gemini_cli_runs_a_servers_prompt_as_a_command(served: Served, model: ScriptedModel, tmp_path: Path) -> None:
    gemini("/greet --who=Ada", served, tmp_path, model.address)
    assert said_by_the_user(model)[-1] == '"one greets Ada"'


def test_gemini_cli_puts_a_resource_into_the_conversation(served: Served, model: ScriptedModel, tmp_path: Path) -> None:
    gemini("read @mcpgate:note://one please", served, tmp_path, model.address)
    assert "note://one of one" in said_by_the_user(model)


def test_gemini_cli_lets_its_model_find_and_read_resources(
    served: Served, at_resources: ScriptedModel, tmp_path: Path
) -> None:
    assert "note://one of one" in gemini("go", served, tmp_path, at_resources.address)
    assert "ui://one/page" in results_of(at_resources)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gemini-3-three", GEMINI),
        ("claude-two", "/v1/chat/completions"),
        ("claude-one", "/v1/messages"),
    ],
)
def test_gemini_cli_runs_its_loop(name: str, path: str, served: Served, model: ScriptedModel, tmp_path: Path) -> None:
    said = gemini("go", served, tmp_path, served.address, ADMIN, name)
    assert SAID in said and "logged" in said
    assert any(one.path == path and "42 logged" in json.dumps(one.body) for one in model.posts())

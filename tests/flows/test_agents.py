"""Real agents through both faces at once: mcpgate is their provider and their only MCP server. Behind it a scripted model
calls execute_code, then a direct tool, and says what that has returned.

Each test skips where the agent's program is not on the PATH (npm: @anthropic-ai/claude-code, @openai/codex,
opencode-ai, @google/gemini-cli)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.governed import ADMIN, TRUSTED, Served, serving, write_config
from tests.scripted_model import ScriptedModel, Step, scripted_model

SERVER = Path(__file__).parents[1] / "full_server.py"
LOOP = (Step("execute_code", {"code": "print(40 + 2, one.log())"}), Step("one__log", {}))
GEMINI = "/v1beta/models/gemini-3-three:streamGenerateContent?alt=sse"
SAID = "The last tool said: "


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with scripted_model(*LOOP) as running:
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
    server = {"command": sys.executable, "args": [str(SERVER), "one"], "expose": "both"}
    with serving(folder, write_config(folder, {"one": server}, governance={"keys": keys}, llm=llm)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(model: ScriptedModel) -> None:
    model.seen.clear()


def run(program: str, *arguments: str, folder: Path, **environment: str) -> str:
    """What an agent writes to stdout, at home in a folder of its own."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not on the PATH")
    kept = {name: os.environ[name] for name in ("PATH", "NODE_EXTRA_CA_CERTS") if name in os.environ}
    result = subprocess.run(
        [found, *arguments],
        cwd=folder,
        env={**kept, "HOME": str(folder), "DISABLE_AUTOUPDATER": "1", "KEY": ADMIN, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-3000:]
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
    assert model.posts()[-1].path == path and "42 logged" in results_of(model)


@pytest.mark.parametrize(
    ("name", "own_name", "path"),
    [
        *(("open/two", own, "/v1/responses") for own in (True, False)),
        *(("claude-one", own, "/v1/messages") for own in (True, False)),
        ("gemini-3-three", True, GEMINI),
    ],
)
def test_codex_runs_its_loop_and_leaves_websockets_at_once(
    name: str, own_name: bool, path: str, served: Served, model: ScriptedModel, tmp_path: Path
) -> None:
    """Codex dials a WebSocket where mcpgate stands at the place of OpenAI, and none for providers of other names."""
    base = f"{served.address}/v1"
    provider = f'model_provider = "gate"\n[model_providers.gate]\nname = "gate"\nbase_url = "{base}"\nenv_key = "KEY"\n'
    (tmp_path / "config.toml").write_text(
        f'model = "{name}"\nweb_search = "disabled"\n'
        + (provider if own_name else f'openai_base_url = "{base}"\n')
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


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gemini-3-three", GEMINI),
        ("claude-two", "/v1/chat/completions"),
        ("claude-one", "/v1/messages"),
    ],
)
def test_gemini_cli_runs_its_loop(name: str, path: str, served: Served, model: ScriptedModel, tmp_path: Path) -> None:
    server = {"httpUrl": f"{served.address}/mcp", "headers": {"Authorization": f"Bearer {ADMIN}"}, "trust": True}
    settings: dict[str, Any] = {
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "general": {"disableAutoUpdate": True},
        "privacy": {"usageStatisticsEnabled": False},
        "mcpServers": {"mcpgate": server},
    }
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini" / "settings.json").write_text(json.dumps(settings))
    said = run(
        *("gemini", "-p", "go", "-m", name, "--approval-mode", "yolo", "--skip-trust"),
        folder=tmp_path,
        GOOGLE_GEMINI_BASE_URL=served.address,
        GEMINI_API_KEY=ADMIN,
    )
    assert SAID in said and "logged" in said
    assert any(one.path == path and "42 logged" in json.dumps(one.body) for one in model.posts())

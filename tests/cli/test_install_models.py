"""`mcpgate install CLIENT --llm` on the agents' own files, in the test's own home folder."""

import json
import tomllib
from pathlib import Path

import pytest

from mcpgate.cli.main import main

LLM = "llm: {providers: {echo: {type: echo}}, models: {fast: {targets: [{target: echo/x}]}}}\n"
WITH_KEY = LLM + 'governance: {keys: {ci: {secret: "mg-of-the-tests", grants: {models: ["*"]}}}}\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.delenv("CODEX_HOME", raising=False)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def install(home: Path, config: str, *arguments: str) -> int:
    file = home / "gate.yaml"
    file.write_text(config)
    with pytest.raises(SystemExit) as ended:
        main(["install", *arguments, "-c", str(file)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_claude_code_gets_the_address_and_keeps_its_settings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{"theme": "dark", "env": {"FOO": "bar"}}')
    assert install(home, WITH_KEY, "claude-code", "--llm", "--model", "fast") == 0
    read = json.loads(settings.read_text())
    assert read == {
        "theme": "dark",
        "env": {"FOO": "bar", "ANTHROPIC_BASE_URL": "http://127.0.0.1:8080", "ANTHROPIC_MODEL": "fast"},
    }
    out = capsys.readouterr().out
    assert "Set ANTHROPIC_AUTH_TOKEN to a key of mcpgate" in out and "Backup: " in out
    assert "mg-of-the-tests" not in settings.read_text() + out


def test_codex_gets_a_provider_and_keeps_its_settings(home: Path) -> None:
    config = home / ".codex" / "config.toml"
    config.parent.mkdir()
    config.write_text('# mine\nmodel = "gpt-5"\n\n[tui]\ntheme = "dark"\n')
    assert install(home, WITH_KEY, "codex", "--llm", "--model", "fast", "--url", "https://gate.test/") == 0
    text = config.read_text()
    read = tomllib.loads(text)
    assert read["model"] == "fast" and read["model_provider"] == "mcpgate" and read["tui"] == {"theme": "dark"}
    assert read["model_providers"]["mcpgate"] == {
        **{"name": "mcpgate", "base_url": "https://gate.test/v1", "wire_api": "responses", "env_key": "MCPGATE_KEY"}
    }
    assert text.startswith("# mine\n")
    assert install(home, WITH_KEY, "codex", "--llm", "--model", "fast", "--url", "https://gate.test/") == 0
    assert config.read_text() == text


def test_gemini_cli_gets_its_environment(home: Path) -> None:
    environment = home / ".gemini" / ".env"
    environment.parent.mkdir()
    environment.write_text("GEMINI_API_KEY=old\nOTHER=1\n")
    settings = environment.with_name("settings.json")
    settings.write_text('{"theme": "Dark", "security": {"folderTrust": {"enabled": true}}}')
    assert install(home, LLM, "gemini", "--llm") == 0
    assert environment.read_text() == (
        "OTHER=1\nGOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8080\nGEMINI_API_KEY=mcpgate\n"
    )
    security = {"folderTrust": {"enabled": True}, "auth": {"selectedType": "gemini-api-key"}}
    assert json.loads(settings.read_text()) == {"theme": "Dark", "security": security}


def test_without_keys_agents_get_something_to_send(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(home, LLM, "claude-code", "--llm") == 0
    read = json.loads((home / ".claude" / "settings.json").read_text())
    assert read["env"]["ANTHROPIC_AUTH_TOKEN"] == "mcpgate"
    assert "Set " not in capsys.readouterr().out


def test_printing_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(home, WITH_KEY, "codex", "--llm", "--print") == 0
    printed = capsys.readouterr()
    assert tomllib.loads(printed.out)["model_provider"] == "mcpgate"
    assert "MCPGATE_KEY" in printed.err and not (home / ".codex").exists()


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        (LLM, ["cursor", "--llm"], "Cursor has no setting"),
        (LLM, ["codex", "--llm", "--model", "fats"], "there are: fast"),
        ("mcpServers: {}\n", ["codex", "--llm"], "no llm.providers"),
        (LLM, ["codex", "--model", "fast"], "go with --llm"),
    ],
)
def test_what_cannot_be_set_is_said(
    config: str, arguments: list[str], words: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(home, config, *arguments) == 2
    assert words in capsys.readouterr().err

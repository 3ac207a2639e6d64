"""How agents are told to ask mcpgate for their models: `mcpgate install CLIENT --llm`."""

from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from mcpgate.cli.clients import Client
from mcpgate.config import jsonc
from mcpgate.config.settings import Config, needs_key
from mcpgate.errors import ConfigError

KEY_VARIABLE = "MCPGATE_KEY"
_NO_KEY = "mcpgate"
"""Agents want a key even where the gateway needs none."""
CLIENTS = ("claude-code", "codex", "gemini")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A file of an agent as it should be, and what is left to do."""

    path: Path
    text: str
    entry: str
    """What was put into it."""
    hint: str


def address_of(config: Config) -> str:
    """Where the gateway is reached, without the path of a face."""
    server = config.server
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)
    return (server.public_url or f"http://{host}:{server.port}{server.base_path}").rstrip("/")


def model_settings(
    client: Client, config: Config, address: str, model: str | None, project: bool = False
) -> list[ModelSettings]:
    """`model`: the alias that the agent should ask for. Raises ConfigError for agents that have no such setting, files
    that cannot be read."""
    if model is not None and model not in config.llm.models and "/" not in model:
        known = ", ".join(config.llm.models) or "none"
        raise ConfigError(f"there is no alias {model!r} in llm.models; there are: {known}")
    folder = client.files[1 if project and len(client.files) > 1 else 0].parent
    with_key = needs_key(config, config.server.host)
    match client.name:
        case "claude-code":
            return [_claude_code(folder if project else folder / ".claude", address, model, with_key, project)]
        case "codex":
            return [_codex(folder / "config.toml", address, model, with_key)]
        case "gemini":
            return [_gemini(folder / ".env", address, model, with_key), _geminis_sign_in(folder / "settings.json")]
    raise ConfigError(f"{client.title} has no setting for the address of its models; {', '.join(CLIENTS)} have one")


def _claude_code(folder: Path, address: str, model: str | None, with_key: bool, project: bool) -> ModelSettings:
    path = folder / ".claude" / "settings.json" if project else folder / "settings.json"
    variables = {"ANTHROPIC_BASE_URL": address, **({"ANTHROPIC_MODEL": model} if model else {})}
    if not with_key:
        variables["ANTHROPIC_AUTH_TOKEN"] = _NO_KEY
    text = _read(path)
    try:
        for name, value in variables.items():
            text = jsonc.with_member(text, ["env", name], value)
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be changed: {error}") from error
    entry = jsonc.with_member("", ["env"], variables)
    hint = "Set ANTHROPIC_AUTH_TOKEN to a key of mcpgate where Claude Code starts" if with_key else ""
    return ModelSettings(path, text.rstrip() + "\n", entry, hint)


def _codex(path: Path, address: str, model: str | None, with_key: bool) -> ModelSettings:
    provider = {"name": "mcpgate", "base_url": f"{address}/v1", "wire_api": "responses"}
    if with_key:
        provider["env_key"] = KEY_VARIABLE
    try:
        document = tomlkit.parse(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    _put_codex(document, provider, model)
    alone = tomlkit.document()
    _put_codex(alone, provider, model)
    hint = f"Set {KEY_VARIABLE} to a key of mcpgate where Codex starts" if with_key else ""
    return ModelSettings(path, tomlkit.dumps(document), tomlkit.dumps(alone), hint)


def _put_codex(document: tomlkit.TOMLDocument, provider: dict[str, str], model: str | None) -> None:
    if model:
        document["model"] = model
    document["model_provider"] = "mcpgate"
    document["web_search"] = "disabled"  # it runs only at OpenAI
    providers = document.setdefault("model_providers", tomlkit.table(is_super_table=True))
    if not isinstance(providers, MutableMapping):
        raise ConfigError("`model_providers` is not a table")
    table = tomlkit.table()
    table.update(provider)
    providers["mcpgate"] = table


def _gemini(path: Path, address: str, model: str | None, with_key: bool) -> ModelSettings:
    variables = {"GOOGLE_GEMINI_BASE_URL": address, **({"GEMINI_MODEL": model} if model else {})}
    if not with_key:
        variables["GEMINI_API_KEY"] = _NO_KEY
    kept = [line for line in _read(path).splitlines() if line.partition("=")[0].strip() not in variables]
    lines = [f"{name}={value}" for name, value in variables.items()]
    hint = "Set GEMINI_API_KEY to a key of mcpgate where Gemini CLI starts" if with_key else ""
    return ModelSettings(path, "\n".join([*kept, *lines]) + "\n", "\n".join(lines) + "\n", hint)


def _geminis_sign_in(path: Path) -> ModelSettings:
    """Without it, Gemini CLI asks how to sign in."""
    try:
        text = jsonc.with_member(_read(path), ["security", "auth", "selectedType"], "gemini-api-key")
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be changed: {error}") from error
    entry = jsonc.with_member("", ["security", "auth", "selectedType"], "gemini-api-key")
    return ModelSettings(path, text.rstrip() + "\n", entry, "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error

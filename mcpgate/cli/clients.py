"""The configuration files of agents: where they are, how to read servers out of them, how to put ours in.
Not a command itself: see import_command and install_command."""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomlkit

from mcpgate.config import jsonc
from mcpgate.config.auth import auth_of_client
from mcpgate.config.environment import missing_variables
from mcpgate.config.upstreams import is_disabled, transport_name
from mcpgate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Client:
    """One agent program."""

    name: str
    title: str
    files: tuple[Path, ...]
    """User-wide configuration first, then the current project's; absent ones are skipped."""
    key: str
    """The key that holds the servers."""
    entry: Callable[[dict[str, Any]], dict[str, Any]] = lambda entry: entry
    """Our stdio entry in this client's form."""
    reload_hint: str = "restart it to take effect"
    passes_on: Literal["all", "named", "some"] = "all"
    """Which variables of its own environment a server gets: all, those that its entry names under `env_vars`, or a
    choice of the client's own."""

    @property
    def own_file(self) -> Path:
        """The user's."""
        return self.files[0]

    @property
    def project_files(self) -> tuple[Path, ...]:
        """Of the current folder. Whoever made the folder wrote them, which may be somebody else."""
        # In the home folder they are the user's own; its path may be written in two ways.
        return tuple(path for path in self.files[1:] if path.resolve() != self.own_file.resolve())


def clients(environ: Mapping[str, str] = os.environ) -> dict[str, Client]:
    """Every client we know, by name, with the paths of this user and this folder."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    here = Path.cwd()
    if sys.platform == "darwin":
        config = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        config = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    codex = Path(environ.get("CODEX_HOME") or home / ".codex")

    def typed(entry: dict[str, Any]) -> dict[str, Any]:
        return {"type": "stdio", **entry}

    known = (
        Client("claude-code", "Claude Code", (home / ".claude.json", here / ".mcp.json"), "mcpServers", typed),
        Client(
            "claude-desktop",
            "Claude Desktop",
            (config / "Claude" / "claude_desktop_config.json",),
            "mcpServers",
            passes_on="some",
        ),
        Client("cursor", "Cursor", (home / ".cursor" / "mcp.json", here / ".cursor" / "mcp.json"), "mcpServers"),
        Client(
            "vscode",
            "VS Code",
            (config / "Code" / "User" / "mcp.json", here / ".vscode" / "mcp.json"),
            "servers",
            typed,
        ),
        Client(
            "codex",
            "Codex",
            (codex / "config.toml", here / ".codex" / "config.toml"),
            "mcp_servers",
            passes_on="named",
        ),
        Client(
            "gemini",
            "Gemini CLI",
            (home / ".gemini" / "settings.json", here / ".gemini" / "settings.json"),
            "mcpServers",
            passes_on="some",
        ),
    )
    return {client.name: client for client in known}


def read_servers(path: Path) -> dict[str, dict[str, Any]]:
    """The servers of any client's file, whatever key they stand under. Raises ConfigError."""
    return {name: entry for name, entry in read_entries(path).items() if isinstance(entry, dict)}


def read_entries(path: Path) -> dict[str, Any]:
    """The same, with what stands there but is no server. Raises ConfigError."""
    data = read_file(path)
    found: dict[str, Any] = {}
    for key in ("mcpServers", "servers", "mcp_servers"):
        if isinstance(data.get(key), dict):
            found.update(data[key])
    if isinstance(data.get("mcp"), dict) and isinstance(data["mcp"].get("servers"), dict):
        found.update(data["mcp"]["servers"])  # VS Code's settings.json
    projects = data.get("projects")
    project = projects.get(str(Path.cwd())) if isinstance(projects, dict) else None
    if isinstance(project, dict) and isinstance(project.get("mcpServers"), dict):
        found.update(project["mcpServers"])  # Claude Code keeps per-project servers in the user's file
    off = _switched_off(path, data, found)
    return {
        str(name): {**entry, "disabled": True} if name in off and isinstance(entry, dict) else entry
        for name, entry in found.items()
    }


def _switched_off(path: Path, data: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """The servers that other settings of the client than their own entries switch off."""
    off: set[str] = set()
    gemini = data.get("mcp")
    if isinstance(gemini, dict):
        off.update(_names(gemini, "excluded"))
        if allowed := _names(gemini, "allowed"):
            off.update(name for name in names if name not in allowed)
    if path.name == ".mcp.json":  # Claude Code keeps the answer to "use this folder's servers?" elsewhere
        folder, own = path.absolute().parent, clients()["claude-code"].own_file
        for file in (own, own.parent / ".claude" / "settings.json", folder / ".claude" / "settings.json",
                     folder / ".claude" / "settings.local.json"):  # fmt: skip
            try:
                settings = read_file(file) if file.is_file() else {}
            except ConfigError:
                continue
            projects = settings.get("projects")
            project = projects.get(str(folder)) if isinstance(projects, dict) else None
            for part in (settings, project):
                off.update(_names(part, "disabledMcpjsonServers"))
    return off


def _names(settings: Any, key: str) -> list[str]:
    found = settings.get(key) if isinstance(settings, dict) else None
    return [str(name) for name in found] if isinstance(found, list) else []


def read_file(path: Path) -> dict[str, Any]:
    """A JSON (comments allowed) or TOML file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = tomlkit.parse(text).unwrap() if path.suffix == ".toml" else jsonc.parse(text)
    except (OSError, ValueError) as error:  # tomlkit's and json's errors are ValueErrors
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: is not a configuration file")
    return data


_TAKEN = {
    "command": "command", "args": "args", "env": "env", "cwd": "cwd", "url": "url", "serverUrl": "url",
    "httpUrl": "url", "headers": "headers", "http_headers": "headers", "type": "type", "transport": "type",
    "disabled": "disabled", "description": "description", "auth": "auth", "oauth": "auth",
}  # fmt: skip
"""A client's key → ours."""
_TRANSLATED = frozenset(
    {
        "enabled",
        "tool_timeout_sec",
        "startup_timeout_sec",
        "startup_timeout_ms",
        "env_http_headers",
        "env_vars",
        "bearer_token_env_var",
        "includeTools",
        "enabled_tools",
        "excludeTools",
        "disabled_tools",
    }
)


def to_ours(entry: Mapping[str, Any], of_gemini: bool = False) -> tuple[dict[str, Any], list[str]]:
    """A client's entry as one of ours, and what could not be taken over."""
    ours: dict[str, Any] = {}
    lost = sorted(entry.keys() - _TAKEN.keys() - _TRANSLATED - ({"timeout"} if of_gemini else set()))
    notes = [f"without {', '.join(lost)}"] if lost else []
    for theirs, key in _TAKEN.items():
        value = entry.get(theirs)
        if value not in (None, "", [], {}, False):
            ours.setdefault(key, value)
    if "auth" in ours:
        ours["auth"], unknown = auth_of_client(ours["auth"])
        notes += [f"without oauth.{key}" for key in unknown]
        if not ours["auth"]:
            del ours["auth"]  # signing in needs no key
    if isinstance(ours.get("type"), str):
        kind = transport_name(ours["type"])
        if kind in ("http", "sse", "stdio"):
            ours["type"] = kind
        else:
            del ours["type"]
    if ours.get("type") == "stdio":
        del ours["type"]
    if entry.get("enabled") is False:
        ours["disabled"] = True
    for theirs, key, per_second in (
        ("tool_timeout_sec", "timeout_s", 1),
        ("startup_timeout_sec", "connect_timeout_s", 1),
        ("startup_timeout_ms", "connect_timeout_s", 1000),
        ("timeout" if of_gemini else "", "timeout_s", 1000),
    ):
        if isinstance(span := entry.get(theirs), (int, float)):
            ours[key] = int(span / per_second) if span % per_second == 0 else span / per_second
    if isinstance(passed := entry.get("env_vars"), list):
        names = [item.get("name") if isinstance(item, dict) else item for item in passed]
        ours["env"] = {**{str(name): f"${{{name}}}" for name in names if name}, **ours.get("env", {})}
    if isinstance(named := entry.get("env_http_headers"), dict):
        ours["headers"] = {**ours.get("headers", {}), **{header: f"${{{name}}}" for header, name in named.items()}}
    if isinstance(variable := entry.get("bearer_token_env_var"), str):
        ours["headers"] = {**ours.get("headers", {}), "Authorization": f"Bearer ${{{variable}}}"}
    allowed = entry.get("includeTools") or entry.get("enabled_tools")
    denied = entry.get("excludeTools") or entry.get("disabled_tools")
    tools = {k: list(v) for k, v in (("allow", allowed), ("deny", denied)) if isinstance(v, list)}
    if tools:
        ours["tools"] = tools

    def variables(value: Any) -> Any:
        if isinstance(value, str):
            for name in re.findall(r"\$\{input:([^}]+)\}", value):
                notes.append(f"the prompt {name!r} was replaced by the environment variable {_variable(name)}")
            value = re.sub(r"\$\{input:([^}]+)\}", lambda m: f"${{{_variable(m.group(1))}}}", value)
            if of_gemini:
                value = re.sub(r"\$([A-Za-z_]\w*)", r"${\1}", value)
            for name in re.findall(r"\$\{(?:workspaceFolder|workspaceRoot)\}", value):
                notes.append(f"{name} was replaced by {Path.cwd()}")
                value = value.replace(name, str(Path.cwd()))
            return re.sub(r"\$\{userHome\}", "${HOME}", value)
        if isinstance(value, dict):
            return {k: variables(v) for k, v in value.items()}
        return [variables(v) for v in value] if isinstance(value, list) else value

    def text(value: Any) -> Any:
        return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    for key in ("env", "headers"):
        if isinstance(values := ours.get(key), dict):
            ours[key] = {name: text(value) for name, value in values.items()}
    if isinstance(ours.get("args"), list):
        ours["args"] = [text(value) for value in ours["args"]]
    return {key: variables(value) for key, value in ours.items()}, list(dict.fromkeys(notes))


def _variable(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()


def unset_variables(servers: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> list[str]:
    """The variables that servers which are not switched off need, and that are not set here."""
    return missing_variables({name: e for name, e in servers.items() if not is_disabled(e)}, environ)


def other_projects(path: Path) -> dict[str, dict[str, Any]]:
    """The servers that Claude Code's file of the user has for other folders than this one, by folder. A program starts
    in its folder, as Claude Code starts it. Raises ConfigError."""
    projects = read_file(path).get("projects")
    found: dict[str, dict[str, Any]] = {}
    for folder, settings in projects.items() if isinstance(projects, dict) else ():
        servers = settings.get("mcpServers") if isinstance(settings, dict) else None
        if isinstance(servers, dict) and servers and folder != str(Path.cwd()):
            found[folder] = {
                name: {"cwd": folder, **entry} if isinstance(entry, dict) and entry.get("command") else entry
                for name, entry in servers.items()
            }
    return found


def is_mcpgate(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is mcpgate itself, which must not be put behind itself."""
    arguments = entry.get("args")
    words = [str(entry.get("command", "")), *map(str, arguments if isinstance(arguments, list) else ())]
    return any(Path(word).name.removesuffix(".exe") == "mcpgate" for word in words)


def our_entry(config: Path) -> dict[str, Any]:
    """How an agent starts mcpgate over stdio."""
    script = shutil.which("mcpgate") or shutil.which("mcpgate", path=str(Path(sys.executable).parent))
    command = [str(Path(script).absolute())] if script else [sys.executable, "-m", "mcpgate"]
    return {"command": command[0], "args": [*command[1:], "serve", "--stdio", "-c", str(config.absolute())]}


def with_entry(client: Client, path: Path, name: str, entry: dict[str, Any]) -> str:
    """The text of the client's file with our entry in it; everything else as it was. Raises ConfigError."""
    entry = client.entry(entry)
    if path.suffix == ".toml":
        try:
            document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        servers = document.setdefault(client.key, tomlkit.table(is_super_table=True))
        if not isinstance(servers, MutableMapping):
            raise ConfigError(f"{path}: `{client.key}` is not a table")
        servers[name] = entry
        return tomlkit.dumps(document)
    try:
        text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
        return jsonc.with_member(text, [client.key, name], entry).rstrip() + "\n"
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be changed: {error}") from error


def write_with_backup(path: Path, text: str) -> Path | None:
    """Replace a file in one step and keep the old one next to it. Returns the backup, or None if there was no file or
    nothing changed. Raises ConfigError."""
    path = path.resolve()  # a dotfile manager's link stays a link
    try:
        return _write_with_backup(path, text)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"{path} cannot be written: {reason}. Make it and its folder writable, or use --print and add the text "
            "yourself"
        ) from error


def _write_with_backup(path: Path, text: str) -> Path | None:
    backup = None
    if path.exists():
        if path.read_bytes() == text.encode():
            return None
        backup = path.with_name(f"{path.name}.mcpgate-{time.strftime('%Y%m%d-%H%M%S')}.bak")
        number = 1
        while backup.exists():
            number += 1
            backup = backup.with_name(f"{path.name}.mcpgate-{time.strftime('%Y%m%d-%H%M%S')}-{number}.bak")
        shutil.copy2(path, backup)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.touch(mode=0o600)  # it may hold secrets from its first byte
    beside.write_bytes(text.encode())
    beside.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o600)
    beside.replace(path)
    return backup

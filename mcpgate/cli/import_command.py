"""`mcpgate import [FROM…]`: the servers that agents on this machine use, as our configuration."""

import argparse
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mcpgate.cli import clients, console
from mcpgate.cli.gateway_session import add_format
from mcpgate.config import jsonc, yamltext
from mcpgate.config.environment import interpolate, missing_variables, not_inherited
from mcpgate.config.files import FILE_NAMES, parse, said_of, user_config_folder
from mcpgate.config.settings import Config
from mcpgate.errors import ConfigError
from mcpgate.telemetry.logs import mask

EXAMPLES = (
    "mcpgate import                          # from every agent that is found",
    "mcpgate import cursor codex --print     # from these; write nothing",
    "mcpgate import path/to/mcp.json -o team.yaml",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(clients.clients())
    parser.add_argument("sources", nargs="*", metavar="FROM", help=f"{known}, or a file (default: all that are found)")
    parser.add_argument(
        "--project",
        action="store_true",
        help="also read configurations in the current folder, which may come from someone else",
    )
    parser.add_argument(
        "--all-projects", action="store_true", help="also import the servers that Claude Code has for other folders"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: mcpgate.yaml in the user's config folder)"
    )
    parser.add_argument("--print", action="store_true", dest="only_print", help="show the configuration, write nothing")
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    output = Path(arguments.output).expanduser() if arguments.output else user_config_folder() / FILE_NAMES[0]
    files = _files(arguments.sources, arguments.project)
    left = [] if arguments.project else _of_project(arguments.sources)
    if not files:
        raise ConfigError(f"no agent configuration was found. {_how_to_take(left) if left else _HOW_TO_START}")
    text = _read(output)
    existing = _servers(text, output)
    merged = dict(existing)
    report: list[dict[str, Any]] = []
    for label, path in files:
        row = {"from": label, "file": str(path)}
        try:
            found = list(_entries(label, path, arguments.all_projects))
        except ConfigError as error:
            if arguments.sources:
                raise
            report.append({**row, "server": "", "starts": "", "what": error.message})
            continue
        for name, entry, folder in found:
            what = _take(name, entry, merged, of_gemini=label == "gemini" or path.absolute().parent.name == ".gemini")
            of_folder = f" (of {folder})" if folder else ""
            report.append({**row, "server": name, "starts": _starts(entry), "what": f"{what}{of_folder}"})
    new = {name: entry for name, entry in merged.items() if name not in existing}
    if new or not output.is_file():
        text = _with_servers(text, output, new)
    unset = clients.unset_variables(merged)
    if left:
        console.note(_how_to_take(left))
    others = [] if arguments.all_projects else _other_folders(files)
    if others:
        console.note(
            f"not imported: the servers that Claude Code has for {', '.join(others)}; run mcpgate import "
            "there, or use --all-projects"
        )
    if arguments.only_print:
        for row in report:
            console.note(f"{row['from']}: {row['server']}: {row['what']}" if row["server"] else row["what"])
        for line in _to_do(unset, merged):
            console.note(line)
        print(text, end="")
        return 0
    # A file that would say the same is left as it is.
    backup = clients.write_with_backup(output, text) if new or not output.is_file() else None
    if arguments.format == "json":
        console.show(
            {
                **{"written": str(output), "backup": str(backup) if backup else None, "servers": report},
                "unset_variables": unset,
                "not_taken": [str(path) for path in left],
            }
        )
    else:
        print(console.table(["from", "server", ""], [[r["from"], _plain(r["server"]), r["what"]] for r in report]))
        of_project = {str(path) for path in _of_project(arguments.sources)}
        for row in report:
            if row["file"] in of_project and row["server"]:
                print(f"{_plain(row['server'])} comes from {row['file']} and starts: {row['starts']}")
        servers = console.counted(len(merged), "server")
        print(f"\n{servers} in {output}" + (f" (before: {backup})" if backup else ""))
        option = f" -c {shlex.quote(str(output))}" if arguments.output else ""
        print(f"Next: mcpgate check{option}, then mcpgate install CLIENT{option}")
        for line in _to_do(unset, merged):
            print(line)
    return 0


_HOW_TO_START = (
    f"Name a file (mcpgate import path/to/mcp.json), or write {FILE_NAMES[0]} yourself, for example: "
    '{mcpServers: {files: {command: npx, args: [-y, "@modelcontextprotocol/server-filesystem", "."]}}}'
)


def _to_do(unset: list[str], servers: Mapping[str, Any]) -> list[str]:
    """What is left to a person, in sentences."""
    lines = []
    starts_programs = any(isinstance(entry, dict) and entry.get("command") for entry in servers.values())
    if starts_programs and (kept_back := not_inherited()):
        lines.append(
            f"Servers do not inherit {', '.join(kept_back)}. If one needs them, add them to its `env`, for example "
            f'{{{kept_back[0]}: "${{{kept_back[0]}}}"}}'
        )
    if unset:
        lines.append(f"Some servers need variables that are not set here. Set these: {', '.join(unset)}")
    return lines


def _entries(label: str, path: Path, all_projects: bool) -> Iterator[tuple[str, Any, str]]:
    """The name and entry of each server in a file, and the folder it belongs to if that is another one. Raises
    ConfigError."""
    for name, entry in clients.read_entries(path).items():
        yield name, entry, ""
    if all_projects and label == "claude-code":
        for folder, entries in clients.other_projects(path).items():
            for name, entry in entries.items():
                yield name, entry, folder


def _other_folders(files: list[tuple[str, Path]]) -> list[str]:
    folders: list[str] = []
    for label, path in files:
        if label == "claude-code":
            try:
                folders += clients.other_projects(path)
            except ConfigError:
                continue  # the report says so
    return folders


def _of_project(sources: list[str]) -> list[Path]:
    """Files of the current folder that belong to the clients that were asked for."""
    known = clients.clients()
    return [
        path
        for name, client in known.items()
        if not sources or name in sources
        for path in client.project_files
        if path.is_file()
    ]


def _how_to_take(left: list[Path]) -> str:
    shown = ", ".join(map(str, left))
    return f"not imported: {shown}, from the current folder. If you trust their author: mcpgate import --project"


def _starts(entry: Any) -> str:
    """The command or the address, with recognizable secrets masked."""
    if not isinstance(entry, dict):
        return ""
    arguments = entry.get("args")
    words = [str(entry.get("command") or ""), *map(str, arguments if isinstance(arguments, list) else ())]
    address = next((entry[key] for key in ("url", "serverUrl", "httpUrl") if entry.get(key)), "")
    return mask(_plain(shlex.join(words) if words[0] else str(address)))


def _plain(text: str) -> str:
    """In one line, and nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _files(sources: list[str], with_project: bool) -> list[tuple[str, Path]]:
    known = clients.clients()
    chosen: list[tuple[str, Path]] = []
    for source in sources or list(known):
        if source in known:
            client = known[source]
            looked_at = (client.own_file, *client.project_files) if with_project else (client.own_file,)
            there = [(source, path) for path in looked_at if path.is_file()]
            if sources and not there:
                looked = ", ".join(map(str, looked_at))
                left = [] if with_project else _of_project([source])
                hint = f". {_how_to_take(left)}" if left else ""
                raise ConfigError(f"{client.title} has no configuration here; looked at {looked}{hint}")
            chosen += there
        elif Path(source).expanduser().is_file():
            chosen.append((source, Path(source).expanduser()))
        else:
            raise ConfigError(f"{source!r} is neither a file nor one of {', '.join(known)}")
    return list({path.resolve(): (label, path) for label, path in reversed(chosen)}.values())[::-1]


def _read(output: Path) -> str:
    """The text of our file with its own line ends; empty if there is none. Raises ConfigError."""
    try:
        return output.read_bytes().decode() if output.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{output}: cannot be read, so it is unchanged: {error}") from error


def _servers(text: str, output: Path) -> dict[str, Any]:
    """The servers that our file has already. Raises ConfigError."""
    try:
        data = parse(text, str(output))
        servers = data.get(_key(data))
        missing_variables(servers, {})  # a first walk through all of them
    except ConfigError as error:
        raise ConfigError(f"{error.message}. The file is unchanged; fix it, or choose another with -o") from None
    except RecursionError:
        raise ConfigError(f"{output}: an alias contains itself. The file is unchanged") from None
    if servers is not None and not isinstance(servers, dict):
        raise ConfigError(f"{output}: is not an mcpgate configuration, so it is unchanged; choose another with -o")
    return servers or {}


def _key(data: Mapping[str, Any]) -> str:
    return "servers" if "servers" in data and "mcpServers" not in data else "mcpServers"


def _with_servers(text: str, output: Path, servers: Mapping[str, Any]) -> str:
    """The text of our file with more servers in it, as YAML or JSON, whichever it is; comments and everything else stay
    as they are. Raises ConfigError."""
    before = parse(text, str(output))
    key = _key(before)
    expected = {**before, key: {**(before.get(key) or {}), **servers}}
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    windows = "\r\n" in text
    body = text.removeprefix(mark).replace("\r\n", "\n")
    try:
        if not _is_json(body, output):
            body = yamltext.with_members(body, key, servers)
        elif before.get(key) is None:
            body = f"{jsonc.with_member(body, [key], dict(servers)).rstrip()}\n"
        else:
            for name, entry in servers.items():
                body = f"{jsonc.with_member(body, [key, name], entry).rstrip()}\n"
        same = parse(body, str(output)) == expected
    except (ValueError, yaml.YAMLError, ConfigError):
        same = False
    if not same:
        raise ConfigError(
            f"{output}: import cannot add to a file written in this way, so it is unchanged. Write to another "
            "file with -o, and copy the servers from there"
        )
    return mark + (body.replace("\n", "\r\n") if windows else body)


def _is_json(text: str, output: Path) -> bool:
    if not text.strip():
        return output.suffix == ".json"
    try:
        jsonc.parse(text)
    except ValueError:
        return False
    return True


def _take(name: str, entry: Any, merged: dict[str, Any], of_gemini: bool) -> str:
    """Take one entry over; says what became of it."""
    if not isinstance(entry, dict):
        return "skipped: not a server entry"
    if clients.is_mcpgate(entry):
        return "skipped: this is mcpgate itself"
    ours, notes = clients.to_ours(entry, of_gemini)
    # A variable may hold anything; in an address it may be the beginning.
    values = dict.fromkeys(missing_variables(ours, {}), "http://x")
    try:
        Config.model_validate({"mcpServers": {name: interpolate(ours, "", "", values)}})
    except ValidationError as error:
        first = error.errors()[0]  # not its text, which would show secrets
        where = ".".join(str(part) for part in first["loc"][2:])
        reason = said_of(first)
        return f"skipped: {where}: {reason}" if where else f"skipped: {reason}"
    taken = "imported, disabled" if ours.get("disabled") else "imported"
    if name in merged:
        if merged[name] == ours:
            return "already there"
        number = 2
        while f"{name}-{number}" in merged:
            if merged[f"{name}-{number}"] == ours:
                return "already there"
            number += 1
        merged[f"{name}-{number}"] = ours
        return "; ".join([f"{taken} as {name}-{number}: another {name} is there already", *notes])
    merged[name] = ours
    return "; ".join([taken, *notes])

"""`mcpgate import [FROM…]`: the servers that agents on this machine use, as our configuration."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mcpgate.cli import clients, console
from mcpgate.cli.gateway_session import add_format
from mcpgate.config.files import FILE_NAMES, user_config_folder
from mcpgate.config.settings import Config
from mcpgate.errors import ConfigError
from mcpgate.telemetry.logs import mask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(clients.clients())
    parser.add_argument("sources", nargs="*", metavar="FROM", help=f"{known}, or a file (default: all that are found)")
    parser.add_argument(
        "--project", action="store_true", help="take the current folder's files too, which may be somebody else's"
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
        hint = f". {_how_to_take(left)}" if left else "; name a file: mcpgate import path/to/mcp.json"
        raise ConfigError(f"no agent configuration was found{hint}")
    existing = _existing(output)
    merged: dict[str, Any] = dict(existing.get("mcpServers") or {})
    report: list[dict[str, Any]] = []
    for label, path in files:
        row = {"from": label, "file": str(path)}
        try:
            found = clients.read_servers(path)
        except ConfigError as error:
            if arguments.sources:
                raise
            report.append({**row, "server": "", "starts": "", "what": error.message})
            continue
        for name, entry in found.items():
            what = _take(name, entry, merged, of_gemini=label == "gemini" or path.absolute().parent.name == ".gemini")
            report.append({**row, "server": name, "starts": _starts(entry), "what": what})
    document = {**existing, "mcpServers": merged}
    if output.suffix == ".json":
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    unset = clients.unset_variables(merged)
    if left:
        console.note(_how_to_take(left))
    for folders in filter(None, (clients.other_projects(path) for label, path in files if label == "claude-code")):
        console.note(f"not taken over: servers that Claude Code has for {', '.join(folders)}; import them from there")
    if arguments.only_print:
        for row in report:
            console.note(f"{row['from']}: {row['server']}: {row['what']}" if row["server"] else row["what"])
        if unset:
            console.note(_to_set(unset))
        print(text, end="")
        return 0
    # A file that would say the same is left as it is, with its comments.
    backup = clients.write_with_backup(output, text) if document != existing else None
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
                print(f"{_plain(row['server'])} is of {row['file']} and starts: {row['starts']}")
        servers = console.counted(len(merged), "server")
        print(f"\n{servers} in {output}" + (f" (before: {backup})" if backup else ""))
        option = f" -c {shlex.quote(str(output))}" if arguments.output else ""
        print(f"Next: mcpgate check{option}, then mcpgate install CLIENT{option}")
        if unset:
            print(_to_set(unset))
    return 0


def _to_set(variables: list[str]) -> str:
    return f"The servers need variables that are not set here. Set these: {', '.join(variables)}"


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
    return f"not taken over: {shown}, of the current folder. If you trust whoever wrote them: mcpgate import --project"


def _starts(entry: dict[str, Any]) -> str:
    """The command or address, without secrets that can be told."""
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


def _existing(output: Path) -> dict[str, Any]:
    if not output.is_file():
        return {}
    try:
        data = yaml.safe_load(output.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{output}: cannot be read, so it is left alone: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("mcpServers") or {}, dict):
        raise ConfigError(f"{output}: is not an mcpgate configuration, so it is left alone; choose another with -o")
    if "servers" in data and "mcpServers" not in data:
        data = {"mcpServers" if key == "servers" else key: value for key, value in data.items()}
    return data


def _take(name: str, entry: dict[str, Any], merged: dict[str, Any], of_gemini: bool) -> str:
    """Take one entry over; says what became of it."""
    if clients.is_mcpgate(entry):
        return "left out: it is mcpgate itself"
    ours, notes = clients.to_ours(entry, of_gemini)
    try:
        Config.model_validate({"mcpServers": {name: ours}})
    except ValidationError as error:
        first = error.errors()[0]  # not its text, which would show secrets
        where = ".".join(str(part) for part in first["loc"][2:])
        reason = first["msg"].removeprefix("Value error, ")
        return f"left out: {where}: {reason}" if where else f"left out: {reason}"
    taken = "taken over, disabled" if ours.get("disabled") else "taken over"
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

"""`mcpgate import [FROM…]`: the servers that agents on this machine use, as our configuration."""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mcpgate.cli import clients, console
from mcpgate.cli.gateway_session import add_format
from mcpgate.config.files import FILE_NAMES, user_config_folder
from mcpgate.config.settings import Config
from mcpgate.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(clients.clients())
    parser.add_argument("sources", nargs="*", metavar="FROM", help=f"{known}, or a file (default: all that are found)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: mcpgate.yaml in the user's config folder)"
    )
    parser.add_argument("--print", action="store_true", dest="only_print", help="show the configuration, write nothing")
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    output = Path(arguments.output).expanduser() if arguments.output else user_config_folder() / FILE_NAMES[0]
    files = _files(arguments.sources)
    if not files:
        raise ConfigError("no agent configuration was found; name a file: mcpgate import path/to/mcp.json")
    existing = _existing(output)
    merged: dict[str, Any] = dict(existing.get("mcpServers") or {})
    report: list[dict[str, Any]] = []
    for label, path in files:
        try:
            found = clients.read_servers(path)
        except ConfigError as error:
            if arguments.sources:
                raise
            report.append({"from": label, "server": "", "what": error.message})
            continue
        for name, entry in found.items():
            report.append({"from": label, "server": name, "what": _take(name, entry, merged)})
    document = {**existing, "mcpServers": merged}
    if output.suffix == ".json":
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    if arguments.only_print:
        print(text, end="")
        return 0
    # A file that would say the same is left as it is, with its comments.
    backup = clients.write_with_backup(output, text) if document != existing else None
    if arguments.format == "json":
        console.show({"written": str(output), "backup": str(backup) if backup else None, "servers": report})
    else:
        print(console.table(["from", "server", ""], [[r["from"], r["server"], r["what"]] for r in report]))
        print(f"\n{len(merged)} servers in {output}" + (f" (before: {backup})" if backup else ""))
        print("Next: mcpgate check, then mcpgate install CLIENT")
    return 0


def _files(sources: list[str]) -> list[tuple[str, Path]]:
    known = clients.clients()
    chosen: list[tuple[str, Path]] = []
    for source in sources or list(known):
        if source in known:
            there = [(source, path) for path in known[source].files if path.is_file()]
            if sources and not there:
                looked = ", ".join(str(path) for path in known[source].files)
                raise ConfigError(f"{known[source].title} has no configuration here; looked at {looked}")
            chosen += there
        elif Path(source).expanduser().is_file():
            chosen.append((source, Path(source).expanduser()))
        else:
            raise ConfigError(f"{source!r} is neither a file nor one of {', '.join(known)}")
    return chosen


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


def _take(name: str, entry: dict[str, Any], merged: dict[str, Any]) -> str:
    """Take one entry over; says what became of it."""
    if clients.is_mcpgate(entry):
        return "left out: it is mcpgate itself"
    ours, notes = clients.to_ours(entry)
    try:
        Config.model_validate({"mcpServers": {name: ours}})
    except ValidationError as error:
        first = error.errors()[0]  # not its text, which would show secrets
        where = ".".join(str(part) for part in first["loc"][2:])
        reason = first["msg"].removeprefix("Value error, ")
        return f"left out: {where}: {reason}" if where else f"left out: {reason}"
    if name in merged:
        if merged[name] == ours:
            return "already there"
        number = 2
        while f"{name}-{number}" in merged:
            if merged[f"{name}-{number}"] == ours:
                return "already there"
            number += 1
        merged[f"{name}-{number}"] = ours
        return "; ".join([f"taken over as {name}-{number}: another {name} is there already", *notes])
    merged[name] = ours
    return "; ".join(["taken over", *notes])

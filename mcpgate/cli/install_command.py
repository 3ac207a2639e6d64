"""`mcpgate install CLIENT`: register mcpgate in an agent's own configuration, with a backup; with --llm, as where its
models are."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mcpgate.cli import clients, console, model_settings
from mcpgate.cli.gateway_session import add_config
from mcpgate.config.files import find_config, load_config, needed_variables
from mcpgate.config.settings import Config
from mcpgate.errors import ConfigError
from mcpgate.telemetry.text import one_line

EXAMPLES = (
    "mcpgate install claude-code",
    "mcpgate install codex --print           # show what it would write",
    "mcpgate install cursor --project -c team.yaml",
    "mcpgate install claude-code --llm --model fast  # ask mcpgate for models, too",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client", metavar="CLIENT", choices=list(clients.clients()), help=", ".join(clients.clients()))
    parser.add_argument("--print", action="store_true", dest="only_print", help="show the entry, write nothing")
    parser.add_argument("--name", default="mcpgate", help="name of the entry (default: mcpgate)")
    parser.add_argument("--project", action="store_true", help="this folder's configuration instead of the user's")
    parser.add_argument("--llm", action="store_true", help="set where the agent's models are, instead of its tools")
    parser.add_argument("--model", metavar="ALIAS", help="with --llm: the model that the agent asks for")
    parser.add_argument("--url", help="with --llm: the gateway's address (default: that of the configuration)")
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    client = clients.clients()[arguments.client]
    config = find_config(arguments.config)
    if arguments.llm:
        return _install_models(arguments, client, load_config(config, tolerant=True))
    if arguments.model or arguments.url:
        raise ConfigError("--model and --url go with --llm")
    servers = load_config(config, tolerant=True).mcpServers  # an agent would only say that the server did not start
    variables = needed_variables(config)
    if arguments.project and len(client.files) < 2:
        raise ConfigError(f"{client.title} has no per-project configuration")
    path = client.files[1 if arguments.project else 0]
    entry = clients.our_entry(config)
    if variables and client.passes_on == "named":
        entry["env_vars"] = variables
    for name, server in servers.items():
        if server.unusable:
            console.note(f"{name} is unavailable ({one_line(server.unusable)}); other servers are not affected")
    if arguments.only_print:
        if path.suffix == ".toml":
            print(
                f"# {path}\n{clients.with_entry(client, path.with_name('.none.toml'), arguments.name, entry)}", end=""
            )
        else:
            print(f"// {path}\n{json.dumps({client.key: {arguments.name: client.entry(entry)}}, indent=2)}")
        return 0
    kept = _environment_of(path, arguments.name)
    if kept:
        entry["env"] = kept
    backup = clients.write_with_backup(path, clients.with_entry(client, path, arguments.name, entry))
    print(
        f"{client.title}: {arguments.name} is in {path}; {client.reload_hint}."
        + (f"\nBackup: {backup}" if backup else "")
    )
    if unknown := [name for name in variables if name not in kept]:
        print(_what_to_set(client, arguments.name, unknown))
    others = [name for name in clients.read_servers(path) if name != arguments.name]
    if others:
        rest = console.styled(", ".join(others), "bold")
        print(
            f"It still lists other servers, which cost tokens on every turn: {rest}. "
            "Once mcpgate serves them, remove them there."
        )
    return 0


def _install_models(arguments: argparse.Namespace, client: clients.Client, config: Config) -> int:
    if not config.llm.providers:
        raise ConfigError("the configuration has no llm.providers, so there is no model to ask for")
    address = (arguments.url or model_settings.address_of(config)).rstrip("/")
    for settings in model_settings.model_settings(client, config, address, arguments.model, arguments.project):
        if arguments.only_print:
            print(f"{'//' if settings.path.suffix == '.json' else '#'} {settings.path}\n{settings.entry.rstrip()}")
        else:
            backup = clients.write_with_backup(settings.path, settings.text)
            print(f"{settings.path} says so now." + (f" Backup: {backup}" if backup else ""))
        if settings.hint:
            print(f"{settings.hint}.", file=sys.stderr if arguments.only_print else sys.stdout)
    if not arguments.only_print:
        print(f"{client.title} asks {address} for models; {client.reload_hint}.")
    return 0


def _environment_of(path: Path, name: str) -> dict[str, Any]:
    """The variables that somebody added to our entry. They are kept when the entry is replaced."""
    old = clients.read_servers(path).get(name, {}) if path.exists() else {}
    kept = old.get("env")
    return kept if isinstance(kept, dict) and clients.is_mcpgate(old) else {}


def _what_to_set(client: clients.Client, entry: str, variables: list[str]) -> str:
    names = ", ".join(variables)
    if client.passes_on == "some":
        return f"{client.title} does not pass all variables on to servers. Set these under `env` of {entry}: {names}"
    listed = "; it passes them on, since they are listed under `env_vars`" if client.passes_on == "named" else ""
    return f"Set these in the environment in which {client.title} starts: {names}{listed}"

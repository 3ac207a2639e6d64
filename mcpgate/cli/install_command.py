"""`mcpgate install CLIENT`: register mcpgate in an agent's own configuration, with a backup."""

import argparse
import json

from mcpgate.cli import clients, console
from mcpgate.cli.gateway_session import add_config
from mcpgate.config.files import find_config, load_config
from mcpgate.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client", metavar="CLIENT", choices=list(clients.clients()), help=", ".join(clients.clients()))
    parser.add_argument("--print", action="store_true", dest="only_print", help="show the entry, write nothing")
    parser.add_argument("--name", default="mcpgate", help="name of the entry (default: mcpgate)")
    parser.add_argument("--project", action="store_true", help="this folder's configuration instead of the user's")
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    client = clients.clients()[arguments.client]
    config = find_config(arguments.config)
    load_config(config, tolerant=True)  # otherwise the agent would only report that the server did not start
    if arguments.project and len(client.files) < 2:
        raise ConfigError(f"{client.title} has no per-project configuration")
    path = client.files[1 if arguments.project else 0]
    entry = clients.our_entry(config)
    if arguments.only_print:
        if path.suffix == ".toml":
            print(
                f"# {path}\n{clients.with_entry(client, path.with_name('.none.toml'), arguments.name, entry)}", end=""
            )
        else:
            print(f"// {path}\n{json.dumps({client.key: {arguments.name: client.entry(entry)}}, indent=2)}")
        return 0
    backup = clients.write_with_backup(path, clients.with_entry(client, path, arguments.name, entry))
    print(
        f"{client.title}: added {arguments.name} to {path}; {client.reload_hint}."
        + (f"\nBackup of the previous file: {backup}" if backup else "")
    )
    others = [name for name in clients.read_servers(path) if name != arguments.name]
    if others:
        rest = console.styled(", ".join(others), "bold")
        print(
            f"It still has servers of its own, which cost tokens on every turn: {rest}. "
            "Remove them there once mcpgate serves them."
        )
    return 0

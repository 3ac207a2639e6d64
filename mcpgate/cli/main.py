"""The command line: one file per command; this one only finds it. Each file has `add_arguments`, `run`, and
`EXAMPLES`, lines that `--help` shows.

Exit codes: 0 success, 1 failure (of a check, a run, a tool or the store), 2 wrong usage or configuration, or a file
that cannot be read or written, 130 interrupted."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from mcpgate import __version__
from mcpgate.cli import console
from mcpgate.errors import ConfigError, McpgateError
from mcpgate.governance.store import StoreUnavailable

COMMANDS = {
    "demo": "run a task through the gateway, with real MCP servers, and show what Code Mode saves",
    "serve": "run the gateway: over HTTP, or with --stdio for one agent",
    "check": "validate the configuration, connect to every server, test the sandbox and the stores",
    "tools": "search the tools, as a model would",
    "describe": "show the Python stubs of tools or servers",
    "docs": "read a page: sandbox, a server, or server.tool",
    "run": "run a Python file in the sandbox, with the servers as globals",
    "keys": "make, list, rotate and revoke virtual keys",
    "auth": "sign in to servers that want OAuth, list sign-ins, end them",
    "route": "say where a request for a model would go, and why",
    "cache": "show what the cache holds and saves, drop entries, warm it, take entries elsewhere",
    "usage": "show who used the gateway for what, what it cost, and what Code Mode saved",
    "log": "show what was asked and done, request by request",
    "alerts": "test whether alerts arrive",
    "import": "import the servers that your agents already use",
    "install": "register mcpgate in an agent",
    "sandbox": "build or test the sandbox",
    "completion": "print a script that completes commands and options in your shell",
}
_FIRST_STEPS = (
    "mcpgate demo                 # see what it does, with three small servers",
    "mcpgate import               # write a configuration from your agents' own",
    "mcpgate check                # try every server in it",
    "mcpgate install claude-code  # let an agent start it",
)
_EXAMPLES = "examples:\n"


class _Help(argparse.HelpFormatter):
    """Fits text to the terminal, but keeps the lines of examples."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment  # argparse forgets how far it indents them

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


def parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Imports only the requested command: `serve` must not pay for the others."""
    main_parser = argparse.ArgumentParser(
        prog="mcpgate", description="One MCP server in front of many.", allow_abbrev=False, formatter_class=_Help
    )
    main_parser.add_argument("--version", action="version", version=f"mcpgate {__version__}")
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        sub = commands.add_parser(
            name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False, formatter_class=_Help
        )
        if name in argv:
            _module(name).add_arguments(sub)
            _show_examples(sub, _module(name).EXAMPLES)
    main_parser.epilog = _EXAMPLES + "".join(f"  {line}\n" for line in _FIRST_STEPS)
    return main_parser


def _show_examples(command: argparse.ArgumentParser, lines: Sequence[str]) -> None:
    """Show a command those of the lines that use it, and its actions theirs."""
    own = [line for line in lines if f"{command.prog} " in f"{line} "]
    if own:
        command.formatter_class = _Help
        command.epilog = _EXAMPLES + "".join(f"  {line}\n" for line in own)
    for actions in command._actions:
        if isinstance(actions, argparse._SubParsersAction):
            for action in actions.choices.values():
                _show_examples(action, lines)


def _module(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"mcpgate.cli.{name}_command")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        parser(argv).print_help(sys.stderr)
        sys.exit(2)
    arguments = parser(argv).parse_args(argv)
    try:
        code = _module(arguments.command).run(arguments)
        sys.stdout.flush()
    except ConfigError as error:
        console.fail(error.message)
        code = 2
    except McpgateError as error:
        console.fail(error.message)
        code = 1
    except StoreUnavailable as error:
        console.fail(f"the store is unavailable: {error}")
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone (`mcpgate tools | head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    sys.exit(code)


if __name__ == "__main__":
    main()

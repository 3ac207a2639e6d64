"""`mcpgate completion SHELL`: a script with which a shell completes commands, options and files. It is printed once,
so that no key press has to start Python."""

import argparse

from mcpgate.cli import main

_SHELLS = ("bash", "zsh", "fish")
_FILES = ("FILE", "FILE.py|-", "FROM")
EXAMPLES = (
    "mcpgate completion bash > ~/.mcpgate.bash   # and source it in ~/.bashrc",
    "mcpgate completion zsh > ~/.zfunc/_mcpgate  # a folder of $fpath",
    "mcpgate completion fish > ~/.config/fish/completions/mcpgate.fish",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="the shell that reads the script")


def run(arguments: argparse.Namespace) -> int:
    import shtab  # which takes longer to import than a command line does

    everything = main.parser(list(main.COMMANDS))
    _complete_paths(everything, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(everything, arguments.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, file, folder)
        elif action.metavar in _FILES or action.metavar == "FOLDER":
            action.complete = folder if action.metavar == "FOLDER" else file  # type: ignore[attr-defined]

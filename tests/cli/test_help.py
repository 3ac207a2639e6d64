"""What `--help` and completion show: a person's first look at a command."""

import argparse
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpgate.cli import main


def each_command(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from each_command(command)


COMMANDS = {command.prog: command for command in each_command(main.parser(list(main.COMMANDS)))}
each = pytest.mark.parametrize("name", COMMANDS)


@each
def test_help_fits_a_terminal_and_explains_every_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, COMMANDS[name].format_help().splitlines())) <= 80
    assert [action.dest for action in COMMANDS[name]._actions if not action.help and action.dest != "action"] == [
        *(["command"] if name == "mcpgate" else [])
    ]


@each
def test_help_ends_with_examples_that_are_valid_commands(name: str) -> None:
    heading, *lines = (COMMANDS[name].epilog or "").splitlines()
    assert heading == "examples:" and lines
    for line in lines:
        assert name in line
        words = shlex.split(line, comments=True)
        words = words[words.index("mcpgate") + 1 :]
        arguments = words[: words.index(">")] if ">" in words else words
        assert main.parser(arguments).parse_args(arguments).command == arguments[0]


def test_without_a_command_the_help_is_shown_and_the_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([])
    assert ended.value.code == 2 and "mcpgate import  " in capsys.readouterr().err


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> str:
    with pytest.raises(SystemExit) as ended:
        main.main(["completion", request.param])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("script", ["bash", "zsh", "fish"], indirect=True)
def test_completion_knows_every_command_and_option(script: str) -> None:
    for name, command in COMMANDS.items():
        assert name.split()[-1] in script
        for action in command._actions:
            if action.help != argparse.SUPPRESS:
                assert all(option.lstrip("-") in script for option in action.option_strings)


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("ke", ["keys"]),
        ("keys create --ra", ["--rate"]),
        ("install claude-", ["claude-code", "claude-desktop"]),
        ("sandbox test --engine r", ["restricted"]),
        ("check -c my", ["my.yaml"]),
    ],
)
def test_bash_completes_what_was_begun(typed: str, completed: list[str], script: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").touch()
    words = ["mcpgate", *typed.split()]
    ask = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_mcpgate mcpgate {words[-1]}"
    done = subprocess.run(
        ["bash", "--norc", "-c", f'{script}\n{ask} {words[-2]}; printf "%s\\n" "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=30,
    )
    assert sorted(done.stdout.split()) == completed, done.stderr

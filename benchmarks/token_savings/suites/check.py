"""Checks the suites: plays every task's ground truth through a plain MCP client, and asks the suite for its verdict.

Three times: the rounds, call by call; the Code Mode programs, executed here with the same client behind every server's
name; and the programs again in steps, if a turn has them. And once without doing anything, which the verdict must
reject. No gateway and no sandbox: what fails here is the suite's own fault.
"""

import ast
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema

from benchmarks.code_mode.stdio import ContestantFailed, Launch, StdioClient
from benchmarks.token_savings.task import Suite, Task, Turn, World

_START_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 60.0

Play = Callable[["Servers", Turn], None]
IDLE = "idle"
"""The way that does and says nothing: a valid task's verdict must reject it."""


class ToolError(Exception):
    """What a program catches when a tool fails, as in the sandbox."""


@dataclass
class Verdict:
    """The outcome of one suite, played one way."""

    suite: str
    way: str
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def check(suite: Suite, ways: Sequence[str], wanted: Callable[[Task], bool]) -> list[Verdict]:
    tasks = [task for task in suite.tasks() if wanted(task)]
    verdicts = [Verdict(suite.name, way) for way in ways]
    with tempfile.TemporaryDirectory(prefix="mcpgate-check-") as name:
        folder = Path(name)
        world = suite.open(folder)
        try:
            with Servers(world, folder) as servers:
                for verdict in verdicts:
                    started = time.monotonic()
                    for task in tasks:
                        trouble = (
                            _rest(task, world) if verdict.way == IDLE else _play(task, world, servers, verdict.way)
                        )
                        verdict.done += not trouble
                        if trouble:
                            verdict.failed[task.id] = trouble
                    verdict.seconds = time.monotonic() - started
        finally:
            world.close()
    return verdicts


def describe(suite: Suite) -> str:
    """The suite's tasks by difficulty and by tag."""
    tasks = suite.tasks()
    difficulties = Counter(task.difficulty for task in tasks)
    tags = Counter(tag for task in tasks for tag in task.tags)
    return "\n".join(
        f"  {what}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        for what, counts in (("difficulty", difficulties), ("tags", tags))
    )


class Servers:
    """Every server of a world, started once, by its name."""

    def __init__(self, world: World, folder: Path) -> None:
        self._stack = ExitStack()
        self._clients: dict[str, StdioClient] = {}
        self.tools: dict[tuple[str, str], Mapping[str, Any]] = {}
        for name, entry in world.servers.items():
            launch = Launch(
                entry["command"], tuple(entry["args"]), entry.get("env", {}), folder, folder / f"{name}.stderr"
            )
            client = StdioClient(launch)
            self._stack.callback(client.close)
            self._clients[name] = client
        for name, client in self._clients.items():
            client.initialize(_START_TIMEOUT_S)
            self.tools |= {(name, tool["name"]): tool for tool in client.list_tools(_START_TIMEOUT_S)}

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> Any:
        """The value as code gets it in the sandbox. Checks the tool against the schemas that it lists."""
        listed = self.tools[server, tool]
        jsonschema.validate(arguments, listed["inputSchema"])
        params = {"name": tool, "arguments": arguments}
        result = self._clients[server].request("tools/call", params, _CALL_TIMEOUT_S)
        text = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
        if result.get("isError"):
            raise ToolError(text)
        structured = result.get("structuredContent")
        if structured is None:
            return _parse(text)
        output = listed.get("outputSchema")
        if output is None:
            return structured
        jsonschema.validate(structured, output)
        if list(output.get("properties", ())) == ["result"]:
            value = structured["result"]
            return _parse(value) if output["properties"]["result"].get("type") == "string" else value
        return structured


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _rest(task: Task, world: World) -> str:
    world.begin(task)
    return "" if world.verify(task, [""] * len(task.turns)) else "is done when nothing is"


def _play(task: Task, world: World, servers: Servers, way: str) -> str:
    try:
        world.begin(task)
        for turn in task.turns:
            _WAYS[way](servers, turn)
        return world.verify(task, [turn.answer for turn in task.turns])
    except (ContestantFailed, ToolError, jsonschema.ValidationError) as error:
        return f"{type(error).__name__}: {str(error)[:500]}"
    except Exception as error:  # A program may raise anything.
        return f"{type(error).__name__}: {error}"


def _play_rounds(servers: Servers, turn: Turn) -> None:
    for calls in turn.rounds:
        for call in calls:
            servers.call(call.server, call.tool, call.arguments)


def _play_code(servers: Servers, turn: Turn) -> None:
    _execute(servers, turn.code)


def _play_steps(servers: Servers, turn: Turn) -> None:
    for program in turn.steps or [turn.code]:
        _execute(servers, program)


def _execute(servers: Servers, program: str) -> None:
    names = {name for name, _ in servers.tools}
    scope: dict[str, Any] = {name: _Namespace(servers, name) for name in names}
    exec(compile(ast.parse(program), "<program>", "exec"), scope | {"ToolError": ToolError, "print": _hush})


def _hush(*_: Any, **__: Any) -> None:
    """Discards what programs print for the assistant."""


class _Namespace:
    def __init__(self, servers: Servers, name: str) -> None:
        self._servers, self._name = servers, name

    def __getattr__(self, identifier: str) -> Callable[..., Any]:
        tool = next(
            tool
            for server, tool in self._servers.tools
            if server == self._name and tool.replace("-", "_") == identifier
        )
        return lambda **arguments: self._servers.call(self._name, tool, arguments)


_WAYS: Mapping[str, Play] = {"rounds": _play_rounds, "code": _play_code, "steps": _play_steps}
WAYS = (*_WAYS, IDLE)

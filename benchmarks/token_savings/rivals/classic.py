"""Classic MCP: every definition in every request, every result in the conversation. Two ways to call: one call per
request, or independent calls together, for models that make parallel calls."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.token_savings.catalogs import Catalogue, qualified
from benchmarks.token_savings.link import Link, Reply, connect_all
from benchmarks.token_savings.rivals.base import Report, Toolbox
from benchmarks.token_savings.stage import SYSTEM, Play, Scene, Stage, play_of
from benchmarks.token_savings.task import Call, Task
from benchmarks.token_savings.transcript import Conversation, ToolCall, function_of


class ClassicToolbox:
    """A connection to every server, and the catalog's definitions."""

    instructions = ""

    def __init__(self, stage: Stage, links: Mapping[str, Link], catalogue: Catalogue) -> None:
        self._targets = {
            qualified(server, tool["name"]): (links[server], tool["name"])
            for server, tools in stage.tools.items()
            for tool in tools
        }
        self.definitions: Sequence[Mapping[str, Any]] = [
            function_of(qualified(server, tool["name"]), tool)
            for servers in (stage.tools, catalogue.without(stage.tools).servers)
            for server, tools in servers.items()
            for tool in tools
        ]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        if name not in self._targets:
            return Reply(f"Error: {name} cannot be used now", is_error=True)
        link, tool = self._targets[name]
        return await link.call(tool, arguments)


class Classic:
    sample: int | None = None

    def __init__(self, name: str, title: str, *, parallel: bool) -> None:
        self.name, self.title = name, title
        self._parallel = parallel

    @asynccontextmanager
    async def open(self, stage: Stage, catalogue: Catalogue) -> AsyncIterator[Toolbox]:
        async with connect_all(stage.entries, stage.folder) as links:
            yield ClassicToolbox(stage, links, catalogue)

    async def play(self, stage: Stage, tasks: Sequence[Task], catalogues: Sequence[Catalogue], report: Report) -> None:
        """Plays once: messages are the same with any catalog; only the definitions before them grow."""
        scenes = [_scene(stage, catalogue) for catalogue in catalogues]
        async with self.open(stage, Catalogue("none", {})) as toolbox:
            for task in tasks:
                for play in await self._play_one(stage, toolbox, task, scenes):
                    report(play)

    async def _play_one(self, stage: Stage, toolbox: Toolbox, task: Task, scenes: Sequence[Scene]) -> list[Play]:
        stage.world.begin(task)
        stage.take_calls()
        talk = Conversation(SYSTEM)
        seconds = 0.0
        for turn in task.turns:
            talk.user(turn.user)
            rounds = turn.rounds if self._parallel else [[call] for round in turn.rounds for call in round]
            for round in rounds:
                calls = [_tool_call(call) for call in round]
                for id, call in zip(talk.assistant("", calls), calls, strict=True):
                    began = time.perf_counter()
                    reply = await toolbox.call(call.name, call.arguments)
                    seconds += time.perf_counter() - began
                    talk.tool(id, reply.text)
            talk.assistant(turn.answer)
        failure = stage.world.verify(task, talk.answers)
        upstream_calls = len(stage.take_calls())
        return [play_of(stage, task, self.name, scene, talk, upstream_calls, failure, seconds) for scene in scenes]


def _tool_call(call: Call) -> ToolCall:
    return ToolCall(qualified(call.server, call.tool), call.arguments)


def _scene(stage: Stage, catalogue: Catalogue) -> Scene:
    rest = catalogue.without(stage.tools)
    own = Catalogue("own", stage.tools)
    return Scene(catalogue.name, rest.size + own.size, rest.tokens + own.tokens)

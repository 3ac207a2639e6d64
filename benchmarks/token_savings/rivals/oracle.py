"""The oracle with a Code Mode: what a sensible model does with it, step by step.

In each turn it looks for the tools that it has not seen yet. First it asks about the servers that the rival's index
shows, or, without an index, in the user's words; then once more about what that did not show; then for descriptions if
a call shape does not say enough. Then it runs the turn's program and answers. Each step is a model request;
independent queries share one. It does not look up again what it has seen.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from benchmarks.token_savings.discovery import mentions, needed, programs, question, shapes_of, suffices, words_of
from benchmarks.token_savings.link import Reply
from benchmarks.token_savings.rivals.base import Idiom, Toolbox
from benchmarks.token_savings.stage import SYSTEM, Stage
from benchmarks.token_savings.task import Call, Task, Turn
from benchmarks.token_savings.transcript import Conversation, ToolCall

Execute = Callable[[str, str], Awaitable[Reply]]
"""(key of turn and step, program) → the answer, from the gateway or from an earlier run of the same program."""

Tool = tuple[str, str]


class Oracle:
    """Plays one task."""

    def __init__(self, stage: Stage, toolbox: Toolbox, idiom: Idiom, execute: Execute) -> None:
        self._stage, self._toolbox, self._idiom, self._execute = stage, toolbox, idiom, execute
        self._parameters = {
            (server, tool): {name: ident for ident, name in parameters.items()}
            for server, tool, parameters in stage.spellings.values()
        }
        self.talk = Conversation("\n".join(filter(None, (SYSTEM, toolbox.instructions))))
        self.seconds = 0.0
        self._known: set[Tool] = set()
        """Tools that code can be written for."""
        self._browsed: set[str] = set()
        self._shown = "\n".join(definition["function"]["description"] for definition in toolbox.definitions)
        """Everything that the model has read about tools so far."""

    async def play(self, task: Task) -> Conversation:
        for at, turn in enumerate(task.turns):
            self.talk.user(turn.user)
            tools = needed(turn)
            if tools:
                await self._discover(turn, tools)
            for step, ours in enumerate(programs(turn)):
                code = self._idiom.program(ours, self._stage)
                (id,) = self.talk.assistant("", [ToolCall(self._idiom.execute, {"code": code})])
                reply = await self._timed(self._execute(f"{task.id}#{at}.{step}", code))
                self.talk.tool(id, reply.text)
            self.talk.assistant(turn.answer)
        return self.talk

    async def _discover(self, turn: Turn, tools: Mapping[Tool, Sequence[Call]]) -> None:
        unknown = {tool: calls for tool, calls in tools.items() if tool not in self._known}
        seen: set[Tool] = set()
        self._read(self._shown, unknown, seen)
        if left := [tool for tool in unknown if tool not in seen]:
            await self._ask(self._first_questions(question(turn.user), left), unknown, seen)
        if left := [tool for tool in unknown if tool not in seen]:
            await self._ask(self._second_questions(left), unknown, seen)
        if left := [tool for tool in unknown if tool not in self._known]:
            names = [self._idiom.described(self._stage, *tool) for tool in left]
            await self._ask([ToolCall(self._idiom.describe, {self._idiom.describe_argument: names})], unknown, seen)
            self._known.update(left)

    def _first_questions(self, query: str, tools: Sequence[Tool]) -> list[ToolCall]:
        """About each server that the model knows; for the others, the user's words."""
        servers = dict.fromkeys(server for server, _ in tools)
        known = [server for server in servers if self._is_shown(server)]
        calls = [self._browse(server, query) for server in known]
        return calls if len(known) == len(servers) else [*calls, self._search({"query": query})]

    def _second_questions(self, tools: Sequence[Tool]) -> list[ToolCall]:
        """About each server that the model has learned of since; for the others, the words of each tool."""
        fresh = dict.fromkeys(server for server, _ in tools if server not in self._browsed and self._is_shown(server))
        words = [self._search({"query": words_of(tool)}) for server, tool in tools if server not in fresh]
        return [*(self._browse(server, words_of(server)) for server in fresh), *words]

    def _is_shown(self, server: str) -> bool:
        shown = self._idiom.server_shown
        return shown is not None and shown(self._stage, server, self._shown)

    def _browse(self, server: str, query: str) -> ToolCall:
        assert self._idiom.browse
        self._browsed.add(server)
        return self._search(self._idiom.browse(self._stage, server, query, self._shown))

    def _search(self, arguments: Mapping[str, Any]) -> ToolCall:
        return ToolCall(self._idiom.search, arguments)

    async def _ask(self, calls: Sequence[ToolCall], unknown: Mapping[Tool, Sequence[Call]], seen: set[Tool]) -> None:
        for id, call in zip(self.talk.assistant("", calls), calls, strict=True):
            reply = await self._timed(self._toolbox.call(call.name, call.arguments))
            self.talk.tool(id, reply.text)
            text = self._idiom.spelt_out(reply.text)
            self._shown += "\n" + text
            self._read(text, unknown, seen)

    def _read(self, text: str, unknown: Mapping[Tool, Sequence[Call]], seen: set[Tool]) -> None:
        """Records which tools a text shows, and for which of them it shows enough to write the calls."""
        for tool, calls in unknown.items():
            name = self._idiom.shown(self._stage, *tool)
            if not mentions(text, name):
                continue
            seen.add(tool)
            shapes = shapes_of(name, text) if self._idiom.search_shows_shapes else []
            if any(suffices(shape, calls, self._parameters[tool]) for shape in shapes):
                self._known.add(tool)

    async def _timed(self, work: Awaitable[Reply]) -> Reply:
        began = time.perf_counter()
        try:
            return await work
        finally:
            self.seconds += time.perf_counter() - began

"""Bifrost's Code Mode, rebuilt from what is published: it contains and runs none of their code.

Four definitions of 1,409 tokens (tool-level binding, as in its own benchmark). `listToolFiles` names every tool,
without a search; `readToolFile` gives one line per tool below a header of 99 tokens; `executeToolCode` returns, in
addition to what the program printed and returned, `[TOOL] server.tool raw response: …` for every nested call, each up
to 4,096 bytes, and a trailer of 69 tokens. `getToolDocs` is never called: the oracle does not need it. Texts that we do
not have are replaced by filler with their measured number of tokens. Programs run in mcpgate's sandbox, and the world
verifies what they did; only the answer is assembled the other way.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.token_savings.catalogs import Catalogue
from benchmarks.token_savings.discovery import needed, programs
from benchmarks.token_savings.rivals import mcpgate
from benchmarks.token_savings.rivals.base import Report, Toolbox
from benchmarks.token_savings.stage import SYSTEM, Play, Scene, Stage, UpstreamCall, play_of
from benchmarks.token_savings.task import Task
from benchmarks.token_savings.transcript import Conversation, ToolCall

_DEFINITIONS_TOKENS = 1409
_READ_HEADER_TOKENS = 99
_TRAILER_TOKENS = 69
_ECHO_BYTES = 4096
_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}


class Bifrost:
    name = "bifrost"
    title = "Bifrost's shape (rebuilt)"
    sample: int | None = None

    async def play(self, stage: Stage, tasks: Sequence[Task], catalogues: Sequence[Catalogue], report: Report) -> None:
        """Runs every program once; only the listing differs between catalogs."""
        async with mcpgate.RIVAL.open(stage, Catalogue("bifrost", {})) as toolbox:
            for task in tasks:
                stage.world.begin(task)
                stage.take_calls()
                answers, calls, seconds = await _run(stage, toolbox, task)
                failure = stage.world.verify(task, [turn.answer for turn in task.turns])
                for catalogue in catalogues:
                    report(_play(stage, task, catalogue, answers, calls, failure, seconds))


async def _run(stage: Stage, toolbox: Toolbox, task: Task) -> tuple[list[list[str]], int, float]:
    """The answers of each turn's executions, the number of calls, and seconds."""
    answers: list[list[str]] = []
    total = 0
    began = time.perf_counter()
    for turn in task.turns:
        answers.append([])
        for code in programs(turn):
            reply = await toolbox.call(mcpgate.IDIOM.execute, {"code": code})
            calls = stage.take_calls()
            total += len(calls)
            answers[-1].append(_execution(calls, reply.text))
    return answers, total, time.perf_counter() - began


def _execution(calls: Sequence[UpstreamCall], shown: str) -> str:
    echoes = [f"[TOOL] {call.server}.{call.tool} raw response: {_cut(call.raw)}" for call in calls]
    head = "\n".join(["Print output:", *echoes])
    return f"{head}\n\nExecution completed successfully.\nReturn value: {shown}\n\n{_filling(_TRAILER_TOKENS)}"


def _cut(text: str) -> str:
    return text.encode()[:_ECHO_BYTES].decode(errors="ignore")


def _filling(tokens: int) -> str:
    """Filler of so many tokens, for a text of which we know only the length."""
    return " word" * tokens


def _play(
    stage: Stage,
    task: Task,
    catalogue: Catalogue,
    answers: Sequence[Sequence[str]],
    calls: int,
    failure: str,
    seconds: float,
) -> Play:
    servers = {**stage.tools, **catalogue.without(stage.tools).servers}
    talk = Conversation(SYSTEM)
    known: set[tuple[str, str]] = set()
    for turn, texts in zip(task.turns, answers, strict=True):
        talk.user(turn.user)
        tools = needed(turn)
        if tools and not known:
            (id,) = talk.assistant("", [ToolCall("listToolFiles", {})])
            talk.tool(id, _listing(servers))
        if left := [tool for tool in tools if tool not in known]:
            reads = [ToolCall("readToolFile", {"fileName": f"servers/{server}/{tool}.pyi"}) for server, tool in left]
            for id, tool in zip(talk.assistant("", reads), left, strict=True):
                talk.tool(id, _filling(_READ_HEADER_TOKENS) + "\n" + _line(stage, *tool))
            known.update(left)
        for code, text in zip(programs(turn), texts, strict=True):
            (id,) = talk.assistant("", [ToolCall("executeToolCode", {"code": code})])
            talk.tool(id, text)
        talk.assistant(turn.answer)
    scene = Scene(catalogue.name, sum(map(len, servers.values())), _DEFINITIONS_TOKENS)
    return play_of(stage, task, Bifrost.name, scene, talk, calls, failure, seconds)


def _listing(servers: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    lines = ["servers/"]
    for server, tools in servers.items():
        lines.append(f"  {server}/")
        lines += [f"    {tool['name']}.pyi" for tool in tools]
    return "\n".join(lines)


def _line(stage: Stage, server: str, name: str) -> str:
    """`def tool(req: T, opt: T = None) -> dict:  # first sentence or 80 characters`."""
    tool = next(tool for tool in stage.tools[server] if tool["name"] == name)
    schema = tool.get("inputSchema") or {}
    required = schema.get("required") or ()
    properties = sorted((schema.get("properties") or {}).items(), key=lambda item: item[0] not in required)
    parameters = [f"{key}: {_type(value)}" + ("" if key in required else " = None") for key, value in properties]
    about = (tool.get("description") or "").split(". ")[0][:80]
    return f"def {name}({', '.join(parameters)}) -> dict:  # {about}"


def _type(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return _TYPES.get(kind, "Any") if isinstance(kind, str) else "Any"


RIVAL = Bifrost()

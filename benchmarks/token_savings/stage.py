"""Where a suite is played: its world's servers behind relays, what they list, and the record of one play.

It starts no server: a client that connects to an entry does.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.token_savings.catalogs import Catalogue
from benchmarks.token_savings.task import Task, World
from benchmarks.token_savings.transcript import Conversation, Usage, definitions_tokens, usage_of
from mcpgate.catalog.names import identifiers, server_identifiers

SYSTEM = "You are a helpful assistant. Use the tools to do what the user asks, then answer briefly."
_RELAY = Path(__file__).with_name("relay.py")


@dataclass(frozen=True)
class UpstreamCall:
    """A call that reached a server, from any client."""

    server: str
    tool: str
    result: Mapping[str, Any]

    @property
    def raw(self) -> str:
        """What an echo of the raw response would show."""
        return json.dumps(self.result, ensure_ascii=False)


class CallLog:
    """What the relays wrote since the last reading."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.touch()
        self._offset = file.stat().st_size

    def take(self) -> list[UpstreamCall]:
        with self.file.open("rb") as log:
            log.seek(self._offset)
            lines = log.read().splitlines()
            self._offset = log.tell()
        return [UpstreamCall(**json.loads(line)) for line in lines]


@dataclass
class Stage:
    """A suite's world, open for one rival."""

    suite: str
    world: World
    folder: Path
    engine: str
    tools: Mapping[str, Sequence[Mapping[str, Any]]]
    """What each of the world's servers lists."""
    calls: CallLog
    patience_s: float
    """For one rival with one catalog; see `rivals.gateway`."""
    kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    """(server, tool) → the kind of its answers so far: see `learn`. Shared by all rivals of a run."""

    @cached_property
    def spellings(self) -> dict[tuple[str, str], tuple[str, str, dict[str, str]]]:
        """(server, tool) as identifiers in mcpgate's programs → the names of both, and the tool's parameters, required
        ones first: identifier → name."""
        servers = server_identifiers(self.tools)
        found = {}
        for server, tools in self.tools.items():
            idents = identifiers(tool["name"] for tool in tools)
            for tool in tools:
                found[servers[server], idents[tool["name"]]] = (server, tool["name"], _parameters(tool))
        return found

    @cached_property
    def identifiers(self) -> dict[tuple[str, str], str]:
        """(server, tool) → `server.tool` as mcpgate spells it."""
        return {(server, tool): f"{ident[0]}.{ident[1]}" for ident, (server, tool, _) in self.spellings.items()}

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """`mcpServers` of the world, each stdio server behind a relay."""
        return {name: self._relayed(name, entry) for name, entry in self.world.servers.items()}

    def take_calls(self) -> list[UpstreamCall]:
        calls = self.calls.take()
        for call in calls:
            self.kinds.setdefault((call.server, call.tool), kind_of(call.result))
        return calls

    def _relayed(self, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        if "command" not in entry:
            return dict(entry)
        args = ["-S", str(_RELAY), str(self.calls.file), name, entry["command"], *entry.get("args", ())]
        return {**entry, "command": sys.executable, "args": args}


def _parameters(tool: Mapping[str, Any]) -> dict[str, str]:
    schema = tool.get("inputSchema") or {}
    names = list(schema.get("properties") or {})
    idents = identifiers(names)
    required = schema.get("required") or ()
    return {idents[name]: name for name in sorted(names, key=lambda name: name not in required)}


def kind_of(result: Mapping[str, Any]) -> str:
    """What code gets from such a result in a gateway that passes on structured content, or else text: `wrapped` in
    {"result": …}, other `structured`, `json` as text, or `text`."""
    structured = result.get("structuredContent")
    if structured is not None:
        return "wrapped" if isinstance(structured, dict) and list(structured) == ["result"] else "structured"
    blocks = [block for block in result.get("content") or () if isinstance(block, dict)]
    text = "\n".join(block.get("text", "") for block in blocks).strip()
    return "json" if text[:1] in ("{", "[") and _is_json(text) else "text"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Play:
    """One task, played by one rival with one catalog."""

    suite: str
    task: str
    difficulty: str
    rival: str
    catalogue: str
    tools: int
    """Number of tools, including the suite's own."""
    definitions: int
    """Tokens that the model sees of them in every request."""
    usage: Usage
    answers: Mapping[str, tuple[int, int]]
    """Tool that the model called → number of calls, and tokens of all its answers."""
    upstream_calls: int
    seconds: float
    """Time in tools and gateways, without the model's own."""
    failure: str
    """Empty: verified."""


@dataclass(frozen=True)
class Scene:
    """What a rival shows a model with a catalog."""

    catalogue: str
    tools: int
    definitions: int


def scene_of(stage: Stage, catalogue: Catalogue, definitions: Sequence[Mapping[str, Any]]) -> Scene:
    tools = catalogue.without(stage.tools).size + sum(map(len, stage.tools.values()))
    return Scene(catalogue.name, tools, definitions_tokens(definitions))


def play_of(
    stage: Stage,
    task: Task,
    rival: str,
    scene: Scene,
    talk: Conversation,
    upstream_calls: int,
    failure: str,
    seconds: float,
) -> Play:
    return Play(
        suite=stage.suite,
        task=task.id,
        difficulty=task.difficulty,
        rival=rival,
        catalogue=scene.catalogue,
        tools=scene.tools,
        definitions=scene.definitions,
        usage=usage_of(talk.requests, scene.definitions),
        answers={tool: (talk.answer_counts[tool], tokens) for tool, tokens in talk.answer_tokens.items()},
        upstream_calls=upstream_calls,
        seconds=seconds,
        failure=failure,
    )

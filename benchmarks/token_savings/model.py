"""A real model plays the same tasks through the same toolboxes, over any OpenAI- or Anthropic-compatible endpoint.

Costs are the endpoint's own token counts at the given price; a run starts no request beyond its limit. Every play is
appended to a file as it ends, so that a run continues where the last one stopped. The same file holds the transcript
of the conversation. A request that the endpoint refuses fails the task; an endpoint that is unavailable ends the run,
and the task is played next time. It knows nothing of the ground truth but the user's turns.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import anyio
import httpx2

from benchmarks.token_savings.catalogs import Catalogue
from benchmarks.token_savings.prices import Price
from benchmarks.token_savings.rivals.base import Playable, Toolbox
from benchmarks.token_savings.rivals.table import PLAYABLE
from benchmarks.token_savings.run import Plan, open_stage
from benchmarks.token_savings.stage import SYSTEM, Play, Scene, Stage, scene_of
from benchmarks.token_savings.task import Suite, Task
from benchmarks.token_savings.transcript import Usage, count_tokens

_MAX_REQUESTS = 40
"""Requests in one turn: a model that still calls tools then is stopped, and the world judges what it did."""
_MAX_OUTPUT_TOKENS = 8192
_TIMEOUT_S = 300.0
_RETRIES = 4
_LONGEST_WAIT_S = 60.0
_RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_LOCKED = (401, 402, 403, 404)


class RunEnded(Exception):
    """No play can continue: the limit is reached, or the endpoint is unusable."""


class EndpointRefused(Exception):
    """The endpoint refused one request, for example for too long a context, or its answer was invalid."""


@dataclass(frozen=True)
class Said:
    """The model's answer to one request."""

    text: str
    calls: Sequence[tuple[str, str, dict[str, Any]]]
    """(id, name, arguments)"""
    usage: Usage
    raw: Mapping[str, Any]
    """The message as the endpoint expects it back."""


class Dialect(Protocol):
    """A wire format: pure translation."""

    path: str

    def headers(self, key: str) -> dict[str, str]: ...

    def request(self, model: str, system: str, messages: Sequence[Any], toolbox: Toolbox) -> dict[str, Any]: ...

    def answer(self, body: Mapping[str, Any]) -> Said: ...

    def results(self, results: Sequence[tuple[str, str, bool]]) -> list[dict[str, Any]]:
        """(id, text, is_error) of each call → the messages that carry them."""
        ...


class OpenAI:
    path = "/chat/completions"

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def request(self, model: str, system: str, messages: Sequence[Any], toolbox: Toolbox) -> dict[str, Any]:
        first = {"role": "system", "content": system}
        return {"model": model, "messages": [first, *messages], "tools": list(toolbox.definitions)}

    def answer(self, body: Mapping[str, Any]) -> Said:
        message = body["choices"][0]["message"]
        counted = body.get("usage") or {}
        details = counted.get("prompt_tokens_details") or {}
        usage = Usage(
            1,
            counted.get("prompt_tokens", 0),
            details.get("cached_tokens") or 0,
            counted.get("completion_tokens", 0),
        )
        calls = [
            (call["id"], call["function"]["name"], _arguments(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()
        ]
        raw = {"role": "assistant", "content": message.get("content") or ""}
        if message.get("tool_calls"):
            raw["tool_calls"] = message["tool_calls"]
        return Said(message.get("content") or "", calls, usage, raw)

    def results(self, results: Sequence[tuple[str, str, bool]]) -> list[dict[str, Any]]:
        return [{"role": "tool", "tool_call_id": id, "content": text} for id, text, _ in results]


class Anthropic:
    path = "/v1/messages"

    def headers(self, key: str) -> dict[str, str]:
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}

    def request(self, model: str, system: str, messages: Sequence[Any], toolbox: Toolbox) -> dict[str, Any]:
        tools = [
            {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}
            for f in (definition["function"] for definition in toolbox.definitions)
        ]
        return {
            "model": model,
            "max_tokens": _MAX_OUTPUT_TOKENS,
            "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
            "messages": list(messages),
            "tools": tools,
        }

    def answer(self, body: Mapping[str, Any]) -> Said:
        counted = body.get("usage") or {}
        reads = counted.get("cache_read_input_tokens") or 0
        sent = counted.get("input_tokens", 0) + reads + (counted.get("cache_creation_input_tokens") or 0)
        blocks = body["content"]
        return Said(
            "".join(block["text"] for block in blocks if block["type"] == "text"),
            [(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
            Usage(1, sent, reads, counted.get("output_tokens", 0)),
            {"role": "assistant", "content": blocks},
        )

    def results(self, results: Sequence[tuple[str, str, bool]]) -> list[dict[str, Any]]:
        blocks = [
            {"type": "tool_result", "tool_use_id": id, "content": text, "is_error": is_error}
            for id, text, is_error in results
        ]
        return [{"role": "user", "content": blocks}]


def _arguments(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text or "{}")
    except ValueError:
        return {"_invalid_json": text}
    return given if isinstance(given, dict) else {"_not_an_object": given}


@dataclass
class Endpoint:
    """A model at an endpoint, and the money left for it."""

    model: str
    base_url: str
    dialect: Dialect
    price: Price
    max_usd: Decimal
    key: str = field(default_factory=lambda: os.environ.get("MODEL_API_KEY", ""), repr=False)
    spent_usd: Decimal = Decimal(0)
    _dearest_usd: Decimal = Decimal(0)

    async def ask(self, client: httpx2.AsyncClient, body: Mapping[str, Any]) -> Said:
        """One request, repeated while the endpoint is busy. Raises RunEnded, EndpointRefused."""
        if self.spent_usd + self._dearest_usd > self.max_usd:
            raise RunEnded(f"${self.spent_usd:.2f} of ${self.max_usd} are spent")
        response = await self._post(client, body)
        if response.status_code != 200:
            raise EndpointRefused(f"{self.base_url} answered {response.status_code}: {response.text[:400]}")
        try:
            said = self.dialect.answer(response.json())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise EndpointRefused(f"{self.base_url} answered {response.text[:400]}") from error
        cost = self.price.cost_usd(said.usage, cached=True)
        self.spent_usd += cost
        self._dearest_usd = max(self._dearest_usd, cost)
        return said

    async def _post(self, client: httpx2.AsyncClient, body: Mapping[str, Any]) -> httpx2.Response:
        url = self.base_url.rstrip("/") + self.dialect.path
        headers = self.dialect.headers(self.key)
        trouble = ""
        for attempt in range(_RETRIES + 1):
            wait_s = 2.0**attempt
            try:
                response = await client.post(url, json=body, headers=headers, timeout=_TIMEOUT_S)
            except httpx2.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                if response.status_code not in (*_RETRIED, *_LOCKED):
                    return response
                trouble = f"{response.status_code}: {response.text[:400]}"
                if response.status_code in _LOCKED:
                    break
                with contextlib.suppress(ValueError):
                    wait_s = float(response.headers.get("retry-after", ""))
            if attempt < _RETRIES:
                await anyio.sleep(min(wait_s, _LONGEST_WAIT_S))
        raise RunEnded(f"{url} cannot be used: {trouble}")


async def run(
    plan: Plan, suites: Iterable[Suite], endpoint: Endpoint, journal: "Journal", report: Callable[[Play], None]
) -> str:
    """Plays what the journal does not contain yet. Returns why it ended early, if it did."""
    wanted = {
        (task.id, rival.name, catalogue.name)
        for tasks in plan.tasks.values()
        for task in tasks
        for rival in plan.rivals
        for catalogue in plan.catalogues
    }
    for play in journal.plays:
        if (play.task, play.rival, play.catalogue) in wanted:
            report(play)
    async with httpx2.AsyncClient() as client:
        for suite in suites:
            for rival in plan.rivals:
                seat = _Seat(plan, suite, PLAYABLE[rival.name], endpoint, client, journal, report)
                if trouble := await seat.play():
                    return trouble
    return ""


@dataclass(frozen=True)
class _Seat:
    """One rival in one suite."""

    plan: Plan
    suite: Suite
    rival: Playable
    endpoint: Endpoint
    client: httpx2.AsyncClient
    journal: "Journal"
    report: Callable[[Play], None]

    async def play(self) -> str:
        """Returns why it ended early, if it did."""
        folder = self.plan.folder / self.suite.name / self.rival.name
        folder.mkdir(parents=True)
        with closing(self.suite.open(folder / "world")) as world:
            stage = await open_stage(self.plan, self.suite.name, world, folder)
            for catalogue in self.plan.catalogues:
                tasks = [task for task in self.plan.tasks[self.suite.name] if not self._is_done(task, catalogue)]
                if tasks and (trouble := await self._play_catalogue(stage, catalogue, tasks)):
                    return trouble
        return ""

    def _is_done(self, task: Task, catalogue: Catalogue) -> bool:
        return self.journal.has(task.id, self.rival.name, catalogue.name)

    async def _play_catalogue(self, stage: Stage, catalogue: Catalogue, tasks: Sequence[Task]) -> str:
        async with self.rival.open(stage, catalogue) as toolbox:
            scene = scene_of(stage, catalogue, toolbox.definitions)
            for task in tasks:
                player = _Player(self.endpoint, self.client, stage, toolbox)
                try:
                    play = await player.play(task, self.rival.name, scene)
                except RunEnded as ended:
                    return str(ended)
                self.journal.add(play, player.messages)
                self.report(play)
        return ""


class _Player:
    """One conversation."""

    def __init__(self, endpoint: Endpoint, client: httpx2.AsyncClient, stage: Stage, toolbox: Toolbox) -> None:
        self._endpoint, self._client, self._stage, self._toolbox = endpoint, client, stage, toolbox
        self._system = "\n".join(filter(None, (SYSTEM, toolbox.instructions)))
        self._usage = Usage()
        self._answers: dict[str, tuple[int, int]] = {}
        self.messages: list[dict[str, Any]] = []

    async def play(self, task: Task, rival: str, scene: Scene) -> Play:
        """Raises RunEnded. A refused request fails the task."""
        self._stage.world.begin(task)
        self._stage.take_calls()
        began = time.perf_counter()
        try:
            answers = [await self._turn(turn.user) for turn in task.turns]
            failure = self._stage.world.verify(task, answers)
        except EndpointRefused as refused:
            failure = str(refused)
        return Play(
            suite=self._stage.suite,
            task=task.id,
            difficulty=task.difficulty,
            rival=rival,
            catalogue=scene.catalogue,
            tools=scene.tools,
            definitions=scene.definitions,
            usage=self._usage,
            answers=self._answers,
            upstream_calls=len(self._stage.take_calls()),
            seconds=time.perf_counter() - began,
            failure=failure,
        )

    async def _turn(self, user: str) -> str:
        dialect = self._endpoint.dialect
        self.messages.append({"role": "user", "content": user})
        text = ""
        for _ in range(_MAX_REQUESTS):
            body = dialect.request(self._endpoint.model, self._system, self.messages, self._toolbox)
            said = await self._endpoint.ask(self._client, body)
            self._usage += said.usage
            self.messages.append(dict(said.raw))
            text = said.text
            if not said.calls:
                break
            results = []
            for id, name, arguments in said.calls:
                reply = await self._toolbox.call(name, arguments)
                results.append((id, reply.text, reply.is_error))
                count, tokens = self._answers.get(name, (0, 0))
                self._answers[name] = count + 1, tokens + count_tokens(reply.text)
            self.messages += dialect.results(results)
        return text


class Journal:
    """Plays on disk with their conversations, one per line."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text().splitlines() if file.is_file() else []
        self.plays = [_parse(json.loads(line)["play"]) for line in lines]
        self._done = {(play.task, play.rival, play.catalogue) for play in self.plays}

    def has(self, task: str, rival: str, catalogue: str) -> bool:
        return (task, rival, catalogue) in self._done

    def add(self, play: Play, messages: Sequence[Mapping[str, Any]]) -> None:
        with self._file.open("a") as journal:
            journal.write(json.dumps({"play": asdict(play), "messages": messages}, ensure_ascii=False) + "\n")
        self.plays.append(play)
        self._done.add((play.task, play.rival, play.catalogue))


def _parse(record: Mapping[str, Any]) -> Play:
    answers = {tool: (count, tokens) for tool, (count, tokens) in record["answers"].items()}
    return Play(**{**record, "usage": Usage(**record["usage"]), "answers": answers})

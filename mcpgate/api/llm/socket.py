"""Responses over a WebSocket, which Codex dials first: each `response.create` is one request like a POST, admitted by
itself, to whatever provider. The connection keeps what was said last, so that the client sends only what is new."""

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from mcpgate import jsontext
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Disconnected, Exchange
from mcpgate.api.http.sockets import RESTARTING, Socket
from mcpgate.api.http.watch import HungUp, Watch, Watcher
from mcpgate.api.llm import errors
from mcpgate.api.llm.reading import read_object
from mcpgate.errors import InvalidRequest, McpgateError, TooLarge
from mcpgate.governance.records import random_hex
from mcpgate.llm.asked import Asked
from mcpgate.llm.attempt import Streamed, Whole
from mcpgate.llm.chat import Chat
from mcpgate.llm.events import Events, parts_of

_LONGEST_S = 3600.0
"""How long a connection may last, as at OpenAI."""
_KEPT = 2
"""Responses whose conversation is kept: the last one and the one before, which a client may go back to."""


@dataclass(slots=True)
class _Turn:
    """A response and the conversation that it ended."""

    id: str
    items: bytes
    """Of the input and the output, as JSON without the brackets."""


class ResponsesSocket:
    """One connection."""

    def __init__(
        self,
        socket: Socket,
        http: Exchange,
        chat: Chat,
        access: Access,
        watcher: Watcher,
        closing: Closing,
        read: Callable[[bytes], Asked],
        limit: int,
    ) -> None:
        """`http`: the request for the socket. `read`: what a request's body asks. `limit`: bytes of a conversation."""
        self._socket, self._http, self._chat, self._access = socket, http, chat, access
        self._watcher, self._closing, self._read, self._limit = watcher, closing, read, limit
        self._kept: list[_Turn] = []

    async def serve(self) -> None:
        until = time.monotonic() + _LONGEST_S
        stopped = self._closing.stopped()
        try:
            while not stopped.done():
                message = asyncio.ensure_future(self._socket.message())
                left_s = until - time.monotonic()
                await asyncio.wait((message, stopped), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if not message.done():
                    message.cancel()
                    break
                if (data := message.result()) is None:
                    return
                await self._answered(data)
            if not stopped.done():
                error = InvalidRequest(f"a connection lasts {_LONGEST_S / 60:.0f} minutes; open another")
                await self._say(_error("websocket_connection_limit_reached", error))
            await self._socket.close(RESTARTING if stopped.done() else 1000)
        except (Disconnected, HungUp):
            pass
        finally:
            stopped.cancel()

    async def _answered(self, data: bytes) -> None:
        try:
            await self._turn(data)
        except HungUp:
            raise
        except McpgateError as error:
            await self._say(_error(error.code, error))

    async def _turn(self, data: bytes) -> None:
        given = read_object(data, "the message")
        if given.get("type") != "response.create":
            raise InvalidRequest(f"type {str(given.get('type'))[:80]!r} is not served; response.create is")
        # Its key may have changed since the last turn.
        context = dataclasses.replace(await self._access.context(self._http), id=random_hex(16))
        body = {name: value for name, value in given.items() if name not in ("type", "generate", "background")}
        previous = body.pop("previous_response_id", None)
        items = self._conversation(previous, body.get("input"))
        body |= {"stream": True, "input": orjson.Fragment(b"[" + items + b"]")}
        if previous is not None and not any(turn.id == previous for turn in self._kept):
            body["previous_response_id"] = previous  # the provider may know it
        asked = await self._chat.bound(context.caller, self._read(orjson.dumps(body)))
        if given.get("generate") is False:
            self._chat.plan(context.caller, asked)
            await self._prewarm(body, items)
            return
        async with (
            self._watcher.over(self._socket, context) as watch,
            self._chat.answering(context, asked) as answer,
        ):
            if isinstance(answer.what, Whole):
                await watch.write(_whole_error(answer.what))
            else:
                await self._stream(answer.what, items, bool(body.get("store", True)), watch)

    def _conversation(self, previous: Any, given: Any) -> bytes:
        """What was said up to a new input, and the input. Raises TooLarge, InvalidRequest."""
        if isinstance(given, str):
            given = [{"type": "message", "role": "user", "content": given}]
        if given is None:
            given = []
        if not isinstance(given, list):
            raise InvalidRequest("input: must be a string or a list", field="input")
        before = next((turn.items for turn in self._kept if turn.id == previous), b"")
        items = _joined(before, jsontext.dumps(given)[1:-1])
        if len(items) > self._limit:
            raise TooLarge(f"the conversation is over {self._limit:,} bytes", limit=self._limit)
        return items

    async def _prewarm(self, body: dict[str, Any], items: bytes) -> None:
        """The client says what a first turn will begin with, and wants nothing written yet. No provider is asked, so
        it costs nothing."""
        response = {
            "id": f"resp_{random_hex(48)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": body["model"],
            "output": [],
            "parallel_tool_calls": bool(body.get("parallel_tool_calls", True)),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools") or [],
            "usage": None,
        }
        for number, (name, status) in enumerate((("created", "in_progress"), ("completed", "completed"))):
            event = {"type": f"response.{name}", "sequence_number": number, "response": {**response, "status": status}}
            await self._say(orjson.dumps(event))
        self._keep(response["id"], items, [])

    async def _stream(self, answer: Streamed, items: bytes, stored: bool, watch: Watch) -> None:
        async for piece in answer.events:
            for event in Events().feed(piece):
                name, data = parts_of(event)
                if not data or data == b"[DONE]":
                    continue
                if name in ("response.completed", "response.incomplete") or b'"response.completed"' in data:
                    self._note(data, items, stored)
                await watch.write(data)

    def _note(self, data: bytes, items: bytes, stored: bool) -> None:
        """Keep a response that is complete. `stored`: whether its provider knows its parts by their ids."""
        try:
            event = jsontext.loads(data, "replace")
        except ValueError:
            return
        response = event.get("response") if isinstance(event, dict) else None
        if isinstance(response, dict) and event.get("type") in ("response.completed", "response.incomplete"):
            output = response.get("output")
            parts = [part for part in output if isinstance(part, dict)] if isinstance(output, list) else []
            if not stored:
                parts = [{name: value for name, value in part.items() if name != "id"} for part in parts]
            self._keep(response.get("id"), items, parts)

    def _keep(self, id: Any, items: bytes, output: list[Any]) -> None:
        if not isinstance(id, str):
            return
        all_of_it = _joined(items, jsontext.dumps(output)[1:-1])
        if len(all_of_it) <= self._limit:
            self._kept = [*self._kept[1 - _KEPT :], _Turn(id, all_of_it)]

    async def _say(self, data: bytes) -> None:
        await self._socket.raw(data)


def _joined(before: bytes, after: bytes) -> bytes:
    return before + b"," + after if before and after else before or after


def _error(code: str, error: McpgateError) -> bytes:
    body = errors.refusal("responses", error)
    return orjson.dumps(
        {
            **{"type": "error", "status": error.http_status, "error": {**body["error"], "code": code}},
            **{"code": code, "message": error.message, "param": body["error"]["param"], "sequence_number": 0},
        },
        default=str,
    )


def _whole_error(answer: Whole) -> bytes:
    """An error that the provider has answered with."""
    try:
        said = jsontext.loads(answer.body, "replace")
    except ValueError:
        said = None
    error = said.get("error") if isinstance(said, dict) else None
    error = error if isinstance(error, dict) else {"message": answer.body[:500].decode("utf-8", "replace")}
    told = {"code": error.get("code"), "message": str(error.get("message", "")), "param": error.get("param")}
    return jsontext.dumps({"type": "error", "status": answer.status, "error": error, **told, "sequence_number": 0})

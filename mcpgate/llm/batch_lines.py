"""The lines of batches: what clients write into them, and what they read of what came of them. Pure, but for the pieces
of files, which come from the store."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NamedTuple

from mcpgate import jsontext
from mcpgate.llm.batches import Batch, BatchStore, Kind, State

LONGEST = 4 * 1024 * 1024
"""Bytes of a line."""
MOST_VALUES = 100_000
"""JSON values and keys in a line: many lines are decoded at once, and each value takes a hundred bytes."""
LONGEST_ID = 512
"""Characters of a `custom_id`."""
_MOST_ERRORS = 20
"""That are told of one input."""
_PIECE = 256 * 1024


class BadLine(Exception):
    """A line that is none. `code`: OpenAI's, or one in its style."""

    def __init__(self, number: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.number, self.code, self.message, self.param = number, code, message, param

    def shown(self) -> dict[str, Any]:
        """As an error of OpenAI's batches; lines are counted from 1."""
        return {"code": self.code, "line": self.number + 1, "message": self.message, "param": self.param}


class Asking(NamedTuple):
    """One line, taken apart."""

    custom_id: str
    body: Mapping[str, Any]


async def texts_of(store: BatchStore, file: str) -> AsyncGenerator[tuple[int, bytes], None]:
    """The lines of a file with their numbers, from 0; blank ones are left out. Raises BadLine for one that is too long,
    BatchesUnavailable."""
    number, held, at = 0, bytearray(), 0
    while (piece := await store.piece(file, at)) is not None:
        at += 1
        first, *more = piece.split(b"\n")
        held += first
        for text in more:
            if held.strip():
                yield number, bytes(held)
            number, held = number + 1, bytearray(text)
        if len(held) > LONGEST:
            raise BadLine(number, "line_too_long", f"a line may have {LONGEST:,} bytes")
    if held.strip():
        yield number, bytes(held)


def read_line(number: int, text: bytes, url: str | None) -> Asking:
    """`url`: of the batch's endpoint, which OpenAI's lines repeat; None for Anthropic's. Raises BadLine."""
    if len(text) > LONGEST:
        raise BadLine(number, "line_too_long", f"a line may have {LONGEST:,} bytes")
    try:
        line = jsontext.loads(text) if jsontext.count_values(text, MOST_VALUES, MOST_VALUES) <= MOST_VALUES else None
    except ValueError:
        raise BadLine(number, "invalid_json_line", "This line is not parseable as valid JSON.") from None
    if line is None:
        raise BadLine(number, "line_too_large", f"a line may have {MOST_VALUES:,} JSON values")
    if not isinstance(line, dict):
        raise BadLine(number, "invalid_json_line", "This line is not a JSON object.")
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_ID:
        raise BadLine(number, "invalid_custom_id", f"custom_id must have 1 to {LONGEST_ID} characters", "custom_id")
    if url is not None and line.get("method") != "POST":
        raise BadLine(number, "invalid_method", "method must be POST", "method")
    if url is not None and line.get("url") != url:
        raise BadLine(number, "mismatched_endpoint", f"url must be the endpoint of the batch, {url}", "url")
    name = "params" if url is None else "body"
    if not isinstance(body := line.get(name), dict):
        raise BadLine(number, "missing_required_parameter", f"{name} must be a JSON object", name)
    return Asking(custom_id, body)


class Checked(NamedTuple):
    """What is found in an input."""

    total: int
    errors: list[dict[str, Any]]


async def check_input(store: BatchStore, batch: Batch, url: str | None, most: int) -> Checked:
    """How many lines a batch has, and what is wrong with them. Raises BatchesUnavailable."""
    errors: list[dict[str, Any]] = []
    seen: set[int] = set()
    try:
        async for number, text in texts_of(store, batch.file):
            await asyncio.sleep(0)  # each line is decoded, and others wait meanwhile
            if len(seen) >= most:
                raise BadLine(number, "too_many_lines", f"a batch may have {most:,} lines (llm.batches.max_lines)")
            try:
                id = hash(read_line(number, text, url).custom_id)
                if id in seen:
                    raise BadLine(number, "duplicate_custom_id", "custom_id occurs twice", "custom_id")
                seen.add(id)
            except BadLine as error:
                errors.append(error.shown())
                if len(errors) >= _MOST_ERRORS:
                    break
    except BadLine as error:
        errors.append(error.shown())
    if not seen and not errors:
        errors.append({"code": "empty_file", "line": None, "message": "the input has no lines", "param": None})
    return Checked(len(seen), errors)


def render_result(kind: Kind, custom_id: str, state: State, status: int, request_id: str, body: bytes) -> bytes:
    """One line of results. `body`: what the line's request was answered with, which is JSON; empty for one that was not
    asked."""
    id = jsontext.dumps(custom_id)
    plain = body.replace(b"\n", b" ").replace(b"\r", b" ")  # whitespace: within strings they are escaped
    if kind == "anthropic":
        of_state = {"succeeded": b'"succeeded","message":', "errored": b'"errored","error":'}
        result = (
            of_state[state] + plain if state in of_state else b'"canceled"' if state == "cancelled" else b'"expired"'
        )
        return b'{"custom_id":' + id + b',"result":{"type":' + result + b"}}"
    own_id = f"batch_req_{secrets.token_hex(12)}".encode()
    head = b'{"id":"' + own_id + b'","custom_id":' + id
    if state in ("succeeded", "errored"):
        said = b'{"status_code":%d,"request_id":"%s","body":' % (status, request_id.encode()) + plain + b"}"
        return head + b',"response":' + said + b',"error":null}'
    reason = "the batch was cancelled" if state == "cancelled" else "the batch did not end within its completion window"
    error = {"code": f"batch_{state}", "message": f"This line was not run: {reason}."}
    return head + b',"response":null,"error":' + jsontext.dumps(error) + b"}"


async def keep_file(store: BatchStore, account: str, file: str, parts: AsyncGenerator[bytes, None]) -> int:
    """Keep a file, and tell how many bytes it has. What was kept of one that breaks off is dropped. Raises
    BatchesUnavailable, and what `parts` does."""
    held, number, size = bytearray(), 0, 0
    try:
        async for part in parts:
            held += part
            size += len(part)
            while len(held) >= _PIECE:
                await store.put_piece(account, file, number, bytes(held[:_PIECE]))
                del held[:_PIECE]
                number += 1
        if held:
            await store.put_piece(account, file, number, bytes(held))
    except BaseException:
        await asyncio.shield(store.drop_file(file))
        raise
    return size

"""Files that the gateway keeps itself: the input of batches, and their results."""

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator

from mcpgate import jsontext
from mcpgate.api.http.exchange import Exchange
from mcpgate.api.llm.multipart import Form
from mcpgate.errors import InvalidRequest, NotAllowed, TooLarge
from mcpgate.governance.callers import Caller
from mcpgate.llm.batch_lines import keep_file
from mcpgate.llm.batches import OWN, BatchStore
from mcpgate.llm.chat import Chat
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.objects import Kept

_PIECE = 256 * 1024
"""Bytes of results that are read at once."""
_FIELDS = frozenset(("purpose",))


class Opened:
    """An upload, so far as it must be read to know where it goes."""

    def __init__(self, content_type: str, parts: AsyncIterator[bytes]) -> None:
        self.purpose = ""
        """Empty if the form does not say it, or cannot be read."""
        self._type, self._parts, self._read = content_type, parts, list[bytes]()

    async def look(self, http: Exchange) -> None:
        """Read on until the purpose has come. What comes before it is held, and counted. Raises what parts do,
        RateLimited, Unavailable."""
        try:
            form = Form(self._type)
            async for part in self._parts:
                self._read.append(part)
                form.feed(part)
                if "purpose" in form.fields or form.is_over:
                    break
                http.keep(len(part))
        except InvalidRequest:
            return
        self.purpose = form.fields.get("purpose", "")

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The whole body."""
        while self._read:
            yield self._read.pop(0)
        async for part in self._parts:
            yield part


class BatchFiles:
    """Keeps them."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    @property
    def _store(self) -> BatchStore:
        return self._chat.batches

    async def add(self, caller: Caller, upload: Opened, length: int, content_type: str) -> bytes:
        """What the client is told of a new file. Raises NotAllowed, TooLarge, InvalidRequest, BatchesUnavailable,
        ObjectsUnavailable."""
        await check_room(self._chat, caller, length)
        form, id = Form(content_type), f"file-{secrets.token_hex(12)}"

        async def content() -> AsyncGenerator[bytes, None]:
            async for part in upload.pieces():
                for piece in form.feed(part):
                    yield piece
            if not form.is_over or form.filename is None:
                raise InvalidRequest("the form has no file, or does not end")
            if odd := next((name for name in form.fields if name not in _FIELDS), None):
                raise Untranslatable(odd[:80], "is not supported for files of batches; leave it out")

        size = await keep_file(self._store, caller.account, id, content())
        about = file_about(id, size, form.filename or "", "batch", time.time())
        await self._chat.objects.put(Kept("file", id, caller.account, OWN, at=time.time(), about=about))
        return about

    async def content(self, kept: Kept) -> AsyncGenerator[bytes, None]:
        """Raises BatchesUnavailable."""
        if not kept.model:
            number = 0
            while (piece := await self._store.piece(kept.id, number)) is not None:
                yield piece
                number += 1
            return
        async for text in results_of(self._store, kept.alias, kept.model == "output"):
            yield text

    async def delete(self, kept: Kept) -> None:
        """Results stay until their batch is forgotten. Raises BatchesUnavailable, ObjectsUnavailable."""
        await self._chat.objects.forget(kept)
        if not kept.model:
            await self._store.drop_file(kept.id)


async def results_of(store: BatchStore, id: str, succeeded: bool | None = None) -> AsyncGenerator[bytes, None]:
    """The results of a batch, in the order of its lines. Raises BatchesUnavailable."""
    after = -1
    while lines := await store.results(id, after, _PIECE, succeeded):
        yield b"".join(line.result + b"\n" for line in lines)
        after = lines[-1].number


async def check_room(chat: Chat, caller: Caller, more: int) -> None:
    """Raises NotAllowed for a key without models, TooLarge if it has stored too much, BatchesUnavailable."""
    if not any(chat.may_use_provider(caller, name) for name in chat.config.providers):
        raise NotAllowed("no model is granted to this key", key=caller.id)
    most = chat.config.batches.max_stored_mib * 1024 * 1024
    if (stored := await chat.batches.stored_bytes(caller.account)) + more > most:
        raise TooLarge(
            f"files and results of this key's batches hold {stored:,} bytes of {most:,} (llm.batches.max_stored_mib); "
            "delete files of batches that have ended"
        )


def file_about(id: str, size: int, filename: str, purpose: str, at: float) -> bytes:
    """A file as OpenAI describes one."""
    about = {"id": id, "object": "file", "bytes": size, "created_at": int(at), "filename": filename}
    return jsontext.dumps({**about, "purpose": purpose, "status": "processed", "status_details": None})

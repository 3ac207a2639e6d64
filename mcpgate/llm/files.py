"""Files that providers keep for callers. They stay there; what each of them is stands in the table of objects, so that
a caller's list is made of its own files only."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.errors import InvalidRequest, McpgateError, NotAllowed, NotFound, UpstreamError
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.llm.attempt import Whole
from mcpgate.llm.batches import OWN
from mcpgate.llm.chat import Chat
from mcpgate.llm.metering import decoded
from mcpgate.llm.objects import Kept, ObjectsUnavailable, is_id
from mcpgate.llm.provider import Call, Upload
from mcpgate.llm.stored import Stored
from mcpgate.telemetry.text import one_line

_LONGEST_ABOUT = 8 * 1024
_PAGE, _LATEST = 200, 20
MOST_LISTED = 1000
log = logging.getLogger("mcpgate.llm")


class Files:
    """Uploads files, and finds them again."""

    def __init__(self, chat: Chat, stored: Stored) -> None:
        self._chat, self._stored, self._objects = chat, stored, chat.objects

    def provider_for(self, caller: Caller, wanted: str | None) -> str:
        """Where a new file goes: the provider that the client names, else the first of type `openai` that it may use.
        Raises NotAllowed, InvalidRequest."""
        configured = self._chat.config.providers
        if wanted is not None:
            self._check(caller, wanted)
            provider = self._chat.providers.all().get(wanted)
            if provider is None or not provider.keeps_objects:
                raise InvalidRequest(f"x-mcpgate-provider: {one_line(wanted, 200)!r} keeps no files")
            return wanted
        for name, config in configured.items():
            if config.type == "openai" and self._chat.may_use_provider(caller, name):
                return name
        raise NotAllowed("no provider of type openai is granted to this key", key=caller.id)

    async def find(self, caller: Caller, id: str) -> Kept:
        """One of a caller's files. Raises NotFound, NotAllowed, ObjectsUnavailable."""
        found = await self._objects.find(caller.account, "file", [id]) if is_id(id) else []
        if not found:
            raise NotFound(f"no such file object: {one_line(id, 200)}", field="id")
        if found[0].provider != OWN:
            self._check(caller, found[0].provider)
        return found[0]

    async def upload(self, context: RequestContext, provider: str, upload: Upload, content_type: str) -> Whole:
        """What the provider says of a new file. Raises what Stored.send does."""
        account = context.caller.account
        # A request can name several files if they are at one provider, with one key.
        latest = [one for one in await self._objects.page(account, "file", "", _LATEST) if one.provider == provider]
        key = latest[0].key if latest else ""
        file = Kept("file", "", account, provider, key=key)
        call = Call("stored", b"", "", path="/files", key=key, content_type=content_type, upload=upload)
        answer = await self._stored.send(context, file, call)
        if answer.status >= 300:
            return answer
        about = decoded(answer.body)
        if not isinstance(about, dict) or not is_id(id := about.get("id")):
            raise UpstreamError(f"{provider} did not say the id of the file")
        shown = answer.body if len(answer.body) <= _LONGEST_ABOUT else jsontext.dumps({"id": id, "object": "file"})
        file = file._replace(id=id, key=answer.key, at=time.time(), about=shown)
        try:
            await self._objects.put(file)
        except ObjectsUnavailable:
            await self._undo(context, file)
            raise
        return answer

    async def page(self, caller: Caller, query: Mapping[str, str], provider: str | None) -> dict[str, Any]:
        """A caller's own files, as OpenAI lists them. Raises InvalidRequest, ObjectsUnavailable."""
        limit, order = query.get("limit", str(MOST_LISTED)), query.get("order", "desc")
        if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= 10_000 and len(limit) < 9):
            raise InvalidRequest("limit: must be a whole number from 1 to 10000", field="limit")
        if order not in ("asc", "desc"):
            raise InvalidRequest("order: must be asc or desc", field="order")
        most, after, found = min(int(limit), MOST_LISTED), query.get("after", ""), list[Any]()
        while len(found) <= most:
            some = await self._objects.page(caller.account, "file", after, _PAGE, order == "asc")
            if not some:
                break
            after = some[-1].id
            for kept in some:
                about = decoded(kept.about)
                if provider in (None, kept.provider) and query.get("purpose") in (None, about.get("purpose")):
                    found.append(about)
        data = found[:most]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return {"object": "list", "data": data, "has_more": len(found) > most, **ends}

    def _check(self, caller: Caller, provider: str) -> None:
        if not self._chat.may_use_provider(caller, provider):
            raise NotAllowed(f"the provider {one_line(provider, 200)!r} is not granted to this key", key=caller.id)

    async def _undo(self, context: RequestContext, file: Kept) -> None:
        """A file that nobody could ask for again."""
        call = Call("stored", b"", "", method="DELETE", path=f"/files/{file.id}", key=file.key)
        try:
            await self._stored.send(context, file, call)
        except McpgateError as error:
            log.warning("%s keeps %s, which is not recorded: %s", file.provider, file.id, error)

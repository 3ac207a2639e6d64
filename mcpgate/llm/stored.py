"""What is asked about objects that providers keep for a caller: to see, cancel or delete them. Each question goes to
the provider that has the object, with the key that it was made with. It is admitted as a request that costs nothing."""

from mcpgate.errors import NotAllowed, NotFound, UpstreamError
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.llm.attempt import OURS, PASSED_ON, Whole, is_plain
from mcpgate.llm.bound import NOT_KEPT
from mcpgate.llm.chat import Chat
from mcpgate.llm.objects import Kept, is_id
from mcpgate.llm.provider import Call
from mcpgate.telemetry.text import one_line


class Stored:
    """Asks providers about what they keep."""

    def __init__(self, chat: Chat) -> None:
        self._chat, self._objects = chat, chat.objects

    async def response(self, caller: Caller, id: str) -> Kept:
        """One of a caller's responses. Raises NotFound, NotAllowed, ObjectsUnavailable."""
        found = await self._objects.find(caller.account, "response", [id]) if is_id(id) else []
        if not found:
            raise NotFound(f"response with id {one_line(id, 200)!r} not found: {NOT_KEPT}")
        kept, chat = found[0], self._chat
        name = f"{kept.provider}/{kept.model}"
        if not (caller.grants.allow_model(kept.provider, name) or (kept.alias and chat.may_use(caller, kept.alias))):
            raise NotAllowed(f"the model {name!r} is not granted to this key", key=caller.id, model=name)
        return kept

    async def ask(self, context: RequestContext, kept: Kept, method: str, path: str) -> Whole:
        """What the provider says. `path`: what follows its address. Raises NotFound, the gate's refusals, Blocked,
        UpstreamError, UpstreamTimeout, ObjectsUnavailable."""
        what = await self.send(context, kept, Call("stored", b"", kept.model, method=method, path=path, key=kept.key))
        if method == "DELETE" and (what.status < 300 or what.status == 404):
            await self._objects.forget(kept)
        elif kept.kind == "response" and what.status < 300 and method != "DELETE":
            what.body = await self._chat.guarded_stored(what.body, context.caller, kept)
        return what

    async def send(self, context: RequestContext, kept: Kept, call: Call) -> Whole:
        """Admit one request, and the answer to it."""
        provider = self._chat.providers.all().get(kept.provider)
        if provider is None or not provider.keeps_objects:
            raise NotFound(f"the provider {kept.provider!r}, which has it, is no longer configured")
        name = kept.alias or f"{kept.provider}/{kept.model or kept.kind}"
        async with self._chat.admit(context, "chat", name) as admission:
            reply = await provider.send(call)
            try:
                if reply.status < 400:
                    return Whole(reply.status, await reply.read(), key=reply.key)
                body = await reply.error()
            finally:
                await reply.aclose()
            admission.outcome = UpstreamError.code
            if reply.status in OURS:
                raise UpstreamError(f"{kept.provider} answered HTTP {reply.status}", status=reply.status)
            headers = {name: text for name in PASSED_ON if is_plain(text := reply.headers.get(name, ""))}
            return Whole(reply.status, body, headers)

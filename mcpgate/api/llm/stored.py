"""/v1/responses/{id}: what OpenAI's clients ask about responses that a provider keeps. Bytes go through to the provider
that has the response; another caller's are as unknown as those that never were."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode

from mcpgate.api.http.exchange import Disconnected, Exchange
from mcpgate.api.http.headers import governance_headers
from mcpgate.api.http.routing import Handler, SocketHandler
from mcpgate.api.http.watch import HungUp
from mcpgate.api.llm import errors
from mcpgate.api.llm.face import LlmFace
from mcpgate.errors import InvalidRequest, McpgateError
from mcpgate.governance.context import RequestContext
from mcpgate.llm.attempt import Whole
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.objects import Kept
from mcpgate.llm.stored import Stored

_RESPONSE = re.compile(r"/v1/responses/([^/]+)(/cancel|/input_items)?")
_QUERY = frozenset(("include", "include[]", "include_obfuscation", "after", "limit", "order"))
"""Parameters that go on to the provider."""
_LONGEST_QUERY = 2000


class StoredFace(LlmFace):
    """Questions about what providers keep."""

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path in errors.ROUTES.values() or (found := _RESPONSE.fullmatch(path)) is None:
            return None
        match found[2]:
            case "/cancel":
                return {"POST": self._response}
            case "/input_items":
                return {"GET": self._response}
        return {"GET": self._response, "DELETE": self._response}

    def socket_handler(self, path: str) -> SocketHandler | None:
        return None

    async def _response(self, http: Exchange) -> None:
        found = _RESPONSE.fullmatch(http.path)
        assert found is not None
        id, what = found[1], found[2] or ""
        try:
            context = await self._access.context(http)
            if http.method == "POST":
                await http.body()  # nothing that matters
            query = _query(http)
            stored = Stored(self._chat)
            kept = await stored.response(context.caller, id)
            async with self._watcher.over(http, context):
                answer = await stored.ask(context, kept, http.method, f"/responses/{quote(id, safe='')}{what}{query}")
            await self._respond(http, context, kept, answer)
        except (Disconnected, HungUp):
            raise Disconnected from None
        except McpgateError as error:
            await http.refuse(error, errors.refusal("responses", error))

    async def _respond(self, http: Exchange, context: RequestContext, kept: Kept, answer: Whole) -> None:
        headers = {"x-mcpgate-provider": kept.provider, **answer.headers, **governance_headers(context.trail)}
        await http.respond(answer.status, answer.body, headers)


def _query(http: Exchange) -> str:
    """The query that goes on to the provider. Raises InvalidRequest."""
    text = http.scope.get("query_string", b"").decode("latin-1")
    if len(text) > _LONGEST_QUERY:
        raise InvalidRequest(f"the query is over {_LONGEST_QUERY:,} characters")
    pairs = parse_qsl(text, keep_blank_values=True)
    if any(name == "stream" and value.lower() != "false" for name, value in pairs):
        raise Untranslatable("stream", "only what is done in the background can be streamed later; leave it out")
    passed = urlencode([pair for pair in pairs if pair[0] in _QUERY])
    return f"?{passed}" if passed else ""

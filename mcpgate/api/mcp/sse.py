"""The legacy SSE transport: GET /sse is the way to the client, POST /messages the way from it."""

from collections.abc import Mapping

from mcpgate import jsontext
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Exchange
from mcpgate.api.http.routing import Face, Handler
from mcpgate.api.mcp.face import McpFace
from mcpgate.api.mcp.http import caller_at, stream
from mcpgate.api.mcp.protocol import Message, RpcFault, decode, refusal
from mcpgate.api.mcp.sessions import Sessions
from mcpgate.errors import McpgateError, NotFound


class Sse(Face):
    """The face at /sse, at /sse/NAME for each bundle, and at /messages."""

    def __init__(self, face: McpFace, access: Access, sessions: Sessions | None, closing: Closing) -> None:
        self._face, self._access, self._sessions, self._closing = face, access, sessions, closing

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path == "/sse" or path.startswith("/sse/"):
            return {"GET": self._open}
        return {"POST": self._receive} if path == "/messages" else None

    def refusal(self, error: McpgateError) -> Message:
        return refusal(error).to_wire(None)

    async def _open(self, http: Exchange) -> None:
        if self._sessions is None:
            raise NotFound("several workers share this port; the SSE transport needs --workers 1")
        caller = await caller_at(http, self._access, self._face, "/sse")
        opened = self._sessions.new(caller)
        opened.session.send = opened.outbox.put
        try:
            endpoint = f"{http.root}/messages?session_id={opened.id}"
            await stream(http, self._access, self._sessions, opened, caller, self._closing, endpoint)
        finally:
            self._sessions.drop(opened.id)

    async def _receive(self, http: Exchange) -> None:
        id = http.query().get("session_id", "")
        bundle = None if self._sessions is None else self._sessions.bundle_of(id)
        caller = await self._access.identify(http, "/sse" if bundle is None else f"/sse/{bundle}")
        opened = None if self._sessions is None else self._sessions.find(id, caller, anywhere=True)
        if opened is None:
            raise NotFound("no such session; open GET /sse first")
        caller = opened.session.caller = self._face.gateway.entering(caller, opened.session.caller.bundle)
        body = await http.body()
        try:
            message = decode(body)
        except RpcFault as fault:
            await http.respond(400, jsontext.dumps(fault.to_wire(None)))
            return
        opened.session.receive(message)
        await http.respond(202, b"Accepted", {"content-type": "text/plain"})

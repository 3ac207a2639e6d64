"""The HTTP server: an ASGI application that finds the face of a path. Raw ASGI: a framework's routing costs 5 to 9 µs a
request and 28 ms of start-up (Starlette 0.50, measured 2026-11); uvicorn runs it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from mcpgate.addresses import Network
from mcpgate.api.admin.alerts import AlertRoutes
from mcpgate.api.admin.cache import CacheRoutes
from mcpgate.api.admin.gauges import Gauges
from mcpgate.api.admin.models import ModelRoutes
from mcpgate.api.admin.requests import RequestRoutes
from mcpgate.api.admin.routes import AdminFace
from mcpgate.api.admin.upstreams import UpstreamRoutes
from mcpgate.api.dashboard.face import DashboardFace
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Disconnected, Exchange, Receive, Scope, Send, plain_refusal
from mcpgate.api.http.memory import Memory
from mcpgate.api.http.places import FULL, RETRY_S
from mcpgate.api.http.routing import Face, Handler, MethodNotAllowed, Route
from mcpgate.api.http.sockets import Socket
from mcpgate.api.http.visits import Visits
from mcpgate.api.llm.batch_runner import BatchRunner
from mcpgate.api.llm.batches import BatchFace
from mcpgate.api.llm.errors import ROUTES
from mcpgate.api.llm.face import LlmFace
from mcpgate.api.llm.gemini_face import GeminiFace
from mcpgate.api.llm.stored import StoredFace
from mcpgate.api.mcp.face import McpFace
from mcpgate.api.mcp.http import StreamableHttp
from mcpgate.api.mcp.sessions import Sessions
from mcpgate.api.mcp.sse import Sse
from mcpgate.api.oauth import OAuthFace
from mcpgate.errors import McpgateError, NotFound, Unavailable
from mcpgate.gateway import Gateway
from mcpgate.telemetry.metrics import CONTENT_TYPE

_MIB = 1024 * 1024
_HEALTH = ("/healthz", "/readyz")
_ROOT = b"""This is mcpgate, an MCP gateway.

  /mcp                MCP over streamable HTTP: the address for agents
  /sse                MCP over the legacy SSE transport
  /v1                 models, in the formats of OpenAI and Anthropic
  /dashboard          the dashboard
  /api/openapi.json   the admin API
  /healthz /readyz    health
  /metrics            metrics for Prometheus
"""
log = logging.getLogger("mcpgate.http")


class _Failed(McpgateError):
    """A fault of ours."""


class Health(Face):
    """/healthz, /readyz and /metrics, and / for people who look where they are."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway, self._access, self._gauges = gateway, access, Gauges(gateway)

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path == "/":
            return {"GET": self._root, "HEAD": self._probed}
        handlers: dict[str, Handler] = {
            "/healthz": self._healthy,
            "/readyz": self._ready,
            "/metrics": self._metrics,
        }
        found = handlers.get(path)
        return None if found is None else {"GET": found}

    async def _root(self, http: Exchange) -> None:
        await http.respond(200, _ROOT, {"content-type": "text/plain; charset=utf-8"})

    async def _probed(self, http: Exchange) -> None:
        await http.respond(200)

    async def _healthy(self, http: Exchange) -> None:
        await http.respond(200, b'{"status":"ok"}')

    async def _ready(self, http: Exchange) -> None:
        views = self._gateway.pool.views()
        starting = any(view.state == "connecting" and not view.reason for view in views)
        answer: dict[str, Any] = {"ready": not starting}
        if not self._access.needs_key_of(http):  # else whoever asks is nobody we know
            answer["upstreams"] = {view.name: view.state for view in views}
        await http.respond(503 if starting else 200, orjson.dumps(answer))

    async def _metrics(self, http: Exchange) -> None:
        self._access.check_named(http)
        await self._access.check_admin(http)
        await self._gauges.measure()
        with_names = not self._access.needs_key_of(http) or await self._access.is_admin(http)
        await http.respond(200, self._gateway.metrics.shown(with_names), {"content-type": CONTENT_TYPE})


def admin_routes(gateway: Gateway) -> list[Route]:
    parts = (
        UpstreamRoutes(gateway),
        ModelRoutes(gateway),
        RequestRoutes(gateway),
        CacheRoutes(gateway),
        AlertRoutes(gateway),
    )
    return [route for part in parts for route in part.routes()]


class Server:
    """The ASGI application."""

    def __init__(self, gateway: Gateway, host: str = "127.0.0.1", sessions: bool = True) -> None:
        """`host`: the address listened on, which is a name that clients may use. `sessions`: False where several
        processes share the port, so that no request depends on an earlier one."""
        self.closing = Closing()
        """Set when the server stops: ends every open stream."""
        visits = Visits(gateway.vault, gateway.gate)
        self._access = Access(gateway.settings, gateway.gate, host, visits)
        server = gateway.config.server
        self._limit, in_all = server.max_body_mib * _MIB, server.max_body_mib_in_all * _MIB
        self._memory, self._base_path = Memory(in_all, in_all // 4), server.base_path
        face = McpFace(gateway, alone=sessions)
        table = self._sessions = Sessions(face, self._access.still_admitted) if sessions else None
        self.batches = BatchRunner(gateway.chat, gateway.gate)
        self._faces: Sequence[Face] = (
            StreamableHttp(face, self._access, table, self.closing),
            Sse(face, self._access, table, self.closing),
            GeminiFace(gateway.chat, self._access, self.closing),
            StoredFace(gateway.chat, self._access, self.closing),
            BatchFace(gateway.chat, self._access, self.closing, self.batches),
            LlmFace(gateway.chat, self._access, self.closing),
            AdminFace(gateway.gate, self._access, self.closing, admin_routes(gateway)),
            OAuthFace(gateway),
            DashboardFace(self._access, visits, lambda: gateway.gate.config.report_metadata),
            self._access.resource,
            Health(gateway, self._access),
        )

        self._usual = {path: self._find(path) for path in ROUTES.values()}
        """The handlers of what is asked for most."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._serve_socket(Socket(scope, receive, send), receive)
            return
        if scope["type"] != "http":
            return
        http = Exchange(scope, receive, send, self._limit, self._memory, self._base_path)
        face, handlers = self._usual.get(http.path) or self._find(http.path)
        try:
            self._access.check(http)
            if http.method == "OPTIONS":
                await http.respond(204, headers={"access-control-max-age": "600"})
                return
            if face is None:
                raise NotFound(f"no route {http.path[:200]}; MCP is served at /mcp (streamable HTTP) and /sse")
            handler = handlers.get(http.method)
            if handler is None:
                shown = ", ".join(handlers)
                raise MethodNotAllowed(f"{http.method} is not allowed on {http.path}; {shown} is", allow=shown)
            await handler(http)
        except McpgateError as error:
            await self._refuse(http, face, error)
        except Disconnected:
            pass
        except Exception:
            log.exception("%s %.200r failed", http.method, http.path)
            await self._refuse(http, face, _Failed("the gateway failed; its log says why"))
        finally:
            http.end()

    def takes_socket(self, path: str) -> bool:
        """Whether a WebSocket may be opened at a path."""
        if self._base_path and path.startswith(self._base_path + "/"):
            path = path[len(self._base_path) :]
        return any(face.socket_handler(path) is not None for face in self._faces)

    async def _serve_socket(self, socket: Socket, receive: Receive) -> None:
        http = Exchange(socket.request_scope, receive, socket.refuse, self._limit, self._memory, self._base_path)
        found = ((face, face.socket_handler(http.path)) for face in self._faces)
        face, handler = next(((face, handler) for face, handler in found if handler is not None), (None, None))
        try:
            self._access.check(http)
            if handler is None:
                raise NotFound(f"no WebSocket is served at {http.path[:200]}")
            await handler(socket, http)
        except McpgateError as error:
            await self._refuse(http, face, error)
        except Exception:
            log.exception("the WebSocket at %.200r failed", http.path)
            await socket.close(1011, "the gateway failed; its log says why")
        finally:
            socket.end()
            http.end()

    async def when_full(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application of connections beyond the last one that there is a place for."""
        http = Exchange(scope, receive, send, self._limit, self._memory, self._base_path)
        if http.path in _HEALTH:
            await self(scope, receive, send)
            return
        http.last = True
        await self._refuse(http, self._find(http.path)[0], Unavailable(FULL, retry_after_s=RETRY_S))

    def trusted_proxies(self) -> Sequence[Network]:
        """Whose connections are those of many clients."""
        return self._access.trusted_proxies()

    async def _refuse(self, http: Exchange, face: Face | None, error: McpgateError) -> None:
        if not http.started:
            await http.refuse(error, plain_refusal(error) if face is None else face.refusal(error))

    def _find(self, path: str) -> tuple[Face | None, Mapping[str, Handler]]:
        for face in self._faces:
            if (handlers := face.handler(path)) is not None:
                return face, handlers
        return None, {}

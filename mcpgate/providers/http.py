"""Providers that are reached over HTTP: OpenAI, Anthropic, Google, and everything that speaks the formats of one of
them."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import Protocol

from mcpgate.config.llm import ProviderConfig
from mcpgate.errors import RateLimited, UpstreamError, UpstreamTimeout
from mcpgate.llm.gemini_format import BAD_KEY, METHODS, path_of
from mcpgate.llm.provider import Call, Unreachable, Upload, retry_after_s
from mcpgate.providers.keys import Key, KeyRing
from mcpgate.providers.transport import Response, transport_to
from mcpgate.upstream.bodies import inflated

_PATHS = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "input_tokens": "/responses/input_tokens",
    "compact": "/responses/compact",
    "embeddings": "/embeddings",
    "messages": "/messages",
    "count_tokens": "/messages/count_tokens",
}
OPENAI_FORMATS = frozenset(("chat", "responses", "embeddings", "input_tokens", "compact"))
ANTHROPIC_FORMATS = frozenset(("messages", "count_tokens"))
GEMINI_FORMATS = frozenset(METHODS)
VERTEX_FORMATS = GEMINI_FORMATS - {"gemini_embeddings"}
"""Vertex AI has no batches of embeddings."""
_LARGEST, _LARGEST_ERROR = 64 * 1024 * 1024, 256 * 1024
_ERROR_S = 5.0
"""How long the body of an error is waited for."""
_SHORTEST_SECRET = 8
"""Shorter ones would be found in any text."""
_GOOGLES_VERSION = re.compile(r"/v1(?:alpha|beta)?$")
_VERSION = "2023-06-01"
"""Of Anthropic's format, where the client is not one of its own."""
_PROBE_S = 10.0


class Proof(Protocol):
    """What proves who asks, where it takes more than a key."""

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        """Further headers of a request. Raises Unreachable, UpstreamTimeout if there is no proof."""
        ...

    async def aclose(self) -> None: ...


class HttpReply:
    """An answer that has begun."""

    def __init__(
        self,
        response: Response,
        name: str,
        timeout_s: float,
        secrets: Collection[str],
        done: Callable[[], None],
        key: str = "",
    ) -> None:
        """`secrets`: what the request has carried and no client may see. `done`: called when nobody reads it any
        more."""
        self._response, self._name, self.timeout_s, self._done = response, name, timeout_s, done
        self._secrets, self.key = secrets, key
        self._error: bytes | None = None
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        pieces, size, until = [], 0, time.monotonic() + self.timeout_s
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                pieces.append(chunk)
                size += len(chunk)
                if size > _LARGEST:
                    raise Unreachable(f"the answer of {self._name} is over {_LARGEST:,} bytes")
                if time.monotonic() > until:
                    raise UpstreamTimeout(f"the answer of {self._name} did not end within {self.timeout_s:g} s")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def error(self) -> bytes:
        if self._error is None:
            self._error = await self._read_error()
        return self._error

    async def _read_error(self) -> bytes:
        body = bytearray()
        with contextlib.suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(_ERROR_S), contextlib.aclosing(self.chunks()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > _LARGEST_ERROR:
                        break
        found = bytes(body[:_LARGEST_ERROR])
        for secret in self._secrets:
            if len(secret) >= _SHORTEST_SECRET:
                found = found.replace(secret.encode(), b"********")
        return found

    def chunks(self) -> AsyncGenerator[bytes, None]:
        encoding = self.headers.get("content-encoding", "")
        return self._inflated(encoding) if encoding else self._response.chunks()

    async def _inflated(self, encoding: str) -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(inflated(self._response.chunks(), encoding)) as pieces:
                async for piece in pieces:
                    yield piece
        except (UpstreamTimeout, Unreachable):
            raise
        except UpstreamError as error:
            raise Unreachable(f"the answer of {self._name} broke off: {error}") from error

    async def aclose(self) -> None:
        self._done()
        await self._response.aclose()


class HttpProvider:
    """One provider of the configuration."""

    formats: frozenset[str] = OPENAI_FORMATS

    def __init__(self, name: str, config: ProviderConfig, proof: Proof | None = None) -> None:
        """`proof`: with every request."""
        self.name, self._config, self._proof = name, config, proof
        self._is_anthropic, self._is_gemini = config.type == "anthropic", config.type == "gemini"
        self._address = address = config.address
        # The SDKs of Anthropic and Google are given the address without the version.
        if self._is_anthropic:
            self.formats = ANTHROPIC_FORMATS
            self._address = address if address.endswith("/v1") else f"{address}/v1"
        elif config.vertex is not None:
            self.formats = VERTEX_FORMATS
            version = "" if _GOOGLES_VERSION.search(address) else "/v1"
            place = f"projects/{config.vertex.project}/locations/{config.vertex.location}"
            self._address = f"{address}{version}/{place}/publishers/google"
        elif self._is_gemini:
            self.formats = GEMINI_FORMATS
            self._address = address if _GOOGLES_VERSION.search(address) else f"{address}/v1beta"
        is_openai = config.type == "openai" and config.base_url is None
        self.takes_cache_key = is_openai
        self.keeps_objects = self.formats is OPENAI_FORMATS
        self.limit_field = "max_completion_tokens" if is_openai else "max_tokens"
        self._keys = KeyRing(config)
        self._own_headers = {name.lower(): value for name, value in config.headers.items()}
        """They take the place of others of the same name."""
        self.under_way = 0
        self._transport = transport_to(name, self._address, config.connect_timeout_s)

    @property
    def is_busy(self) -> bool:
        return self.under_way > 0

    async def probe(self) -> str:
        method, path, body = self._probe_request()
        for number, key in enumerate(self._keys.all, 1):
            try:
                headers, _ = await self._proved(
                    method, path, self._headers(Call("models", body, ""), key), body, _PROBE_S
                )
                response = await self._send(method, path, headers, body, _PROBE_S, _PROBE_S)
            except (Unreachable, UpstreamTimeout) as error:
                return f"{self._address}: {error}"
            await response.aclose()
            if self._is_refused(response, key):
                which = f"key {number} of {len(self._keys.all)}" if len(self._keys.all) > 1 else "the key"
                which = which if self._proof is None else "the credentials"
                return f"{self._address} does not accept {which} (HTTP {response.status})"
            if response.status >= 500:
                return f"{self._address} answers HTTP {response.status}"
        return ""

    async def aclose(self) -> None:
        await self._transport.aclose()
        if self._proof is not None:
            await self._proof.aclose()

    async def send(self, call: Call) -> HttpReply:
        if self.under_way >= self._config.max_concurrency:
            raise RateLimited(
                f"{self._config.max_concurrency} requests to {self.name} are under way",
                **{"scope": f"provider {self.name}", "limit": self._config.max_concurrency, "window": None},
            )
        self.under_way += 1
        try:
            return await self._answered(call)
        except BaseException:
            self._leave()
            raise

    async def _answered(self, call: Call) -> HttpReply:
        """The answer to the first key that is not refused, or to the last one. Raises what the transport does."""
        path = self._path(call)
        limit_s, silence_s = call.timeout_s or self._config.timeout_s, self._config.timeout_s
        keys = self._keys.candidates(call.model, call.key)
        if call.upload is not None:
            keys = keys[:1]
        for key in keys:
            headers, proof = await self._proved(call.method, path, self._headers(call, key), call.body, limit_s)
            response = await self._send(call.method, path, headers, call.upload or call.body, limit_s, silence_s)
            if 300 <= response.status < 400:
                await response.aclose()
                raise Unreachable(f"{self.name} redirects to another address; set its base_url to that one")
            wait_s = retry_after_s(response.headers) if response.status >= 400 else None
            secrets = (key.secret, *self._config.headers.values(), *proof)
            reply = self._reply(response, call, secrets, key.mark)
            is_unknown = self._is_gemini and reply.status == 400 and BAD_KEY in await reply.error()
            if not self._keys.rest(key, 401 if is_unknown else reply.status, wait_s) or key is keys[-1]:
                return reply
            await response.aclose()
        raise Unreachable(f"no key of {self.name} may be used for {call.model}")

    async def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Upload,
        limit_s: float,
        silence_s: float,
    ) -> Response:
        try:
            return await self._transport.send(method, path, headers, body, limit_s, silence_s)
        except ValueError:  # whose words may hold a part of a key
            raise Unreachable(f"a header or key in the settings of {self.name} cannot be sent") from None

    def _leave(self) -> None:
        self.under_way -= 1

    async def _proved(
        self, method: str, path: str, headers: dict[str, str], body: bytes, limit_s: float
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """The headers of a request, and what in them proves who asks."""
        if self._proof is None:
            return headers, ()
        try:
            async with asyncio.timeout(limit_s):
                proof = await self._proof.headers(method, self._address + path, headers, body)
        except TimeoutError:
            raise UpstreamTimeout(f"no credentials for {self.name} came within {limit_s:g} s") from None
        return {**headers, **proof}, tuple(text.removeprefix("Bearer ") for text in proof.values())

    # --- what differs from one API to another

    def _path(self, call: Call) -> str:
        path = call.path
        if not path:
            path = path_of(call.format, call.model, call.stream) if self._is_gemini else _PATHS[call.format]
        return path + (f"?{call.query}" if call.query else "")

    def _reply(self, response: Response, call: Call, secrets: tuple[str, ...], mark: str) -> HttpReply:
        return HttpReply(response, self.name, self._config.timeout_s, secrets, self._leave, mark)

    def _probe_request(self) -> tuple[str, str, bytes]:
        """One that costs nothing: its method, path and body."""
        return "GET", "/models", b""

    def _is_refused(self, response: Response, key: Key) -> bool:
        """Google says 400 of a key that it does not know."""
        return response.status in (401, 403) or (self._is_gemini and response.status == 400)

    def _headers(self, call: Call, key: Key) -> dict[str, str]:
        headers = {"content-type": call.content_type, "accept-encoding": "identity", **call.headers}
        headers["accept"] = "text/event-stream" if call.stream else "application/json"
        if self._is_anthropic:
            headers.setdefault("anthropic-version", _VERSION)
            if key.secret:
                headers["x-api-key"] = key.secret
        elif self._is_gemini and key.secret:
            headers["x-goog-api-key"] = key.secret
        elif key.secret:
            headers["authorization"] = f"Bearer {key.secret}"
        return {**headers, **self._own_headers}

"""Providers that are reached over HTTP: OpenAI, Anthropic, Google, and everything that speaks the formats of one of
them."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from typing import Any

import httpx2

from mcpgate.config.llm import ProviderConfig
from mcpgate.errors import RateLimited, TooLarge, UpstreamError, UpstreamTimeout
from mcpgate.llm.gemini_format import METHODS, path_of
from mcpgate.llm.provider import Call, Unreachable, retry_after_s
from mcpgate.providers.keys import Key, KeyRing
from mcpgate.upstream.bodies import decoded

_PATHS = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "messages": "/messages",
    "count_tokens": "/messages/count_tokens",
}
OPENAI_FORMATS = frozenset(("chat", "responses", "embeddings"))
ANTHROPIC_FORMATS = frozenset(("messages", "count_tokens"))
GEMINI_FORMATS = frozenset(METHODS)
_LARGEST, _LARGEST_ERROR = 64 * 1024 * 1024, 256 * 1024
_ERROR_S = 5.0
"""How long the body of an error is waited for."""
_SHORTEST_SECRET = 8
"""Shorter ones would be found in any text."""
_GOOGLES_VERSION = re.compile(r"/v1(?:alpha|beta)?$")
_VERSION = "2023-06-01"
"""Of Anthropic's format, where the client is not one of its own."""


class HttpReply:
    """An answer that has begun."""

    def __init__(self, response: httpx2.Response, name: str, timeout_s: float, secrets: Collection[str]) -> None:
        """`secrets`: what the request has carried and no client may see."""
        self._response, self._name, self.timeout_s = response, name, timeout_s
        self._secrets = [secret.encode() for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self.timeout_s), contextlib.aclosing(self.chunks()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > _LARGEST:
                        raise TooLarge(f"the answer of {self._name} is over {_LARGEST:,} bytes", limit=_LARGEST)
        except TimeoutError as error:
            raise UpstreamTimeout(f"the answer of {self._name} did not end within {self.timeout_s:g} s") from error
        return bytes(body)

    async def error(self) -> bytes:
        body = bytearray()
        with contextlib.suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(_ERROR_S), contextlib.aclosing(self.chunks()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > _LARGEST_ERROR:
                        break
        found = bytes(body[:_LARGEST_ERROR])
        for secret in self._secrets:
            found = found.replace(secret, b"********")
        return found

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(decoded(self._response)) as pieces:
                async for piece in pieces:
                    if piece:
                        yield piece
        except httpx2.TimeoutException as error:
            raise UpstreamTimeout(f"{self._name} fell silent for {self.timeout_s:g} s") from error
        except (httpx2.HTTPError, UpstreamError) as error:
            raise Unreachable(f"the answer of {self._name} broke off: {_said(error)}") from error


class HttpProvider:
    """One provider of the configuration."""

    def __init__(self, name: str, config: ProviderConfig) -> None:
        self.name, self._config = name, config
        self._is_anthropic, self._is_gemini = config.type == "anthropic", config.type == "gemini"
        self.formats = OPENAI_FORMATS
        self._address = address = config.address
        # The SDKs of Anthropic and Google are given the address without the version.
        if self._is_anthropic:
            self.formats = ANTHROPIC_FORMATS
            self._address = address if address.endswith("/v1") else f"{address}/v1"
        elif self._is_gemini:
            self.formats = GEMINI_FORMATS
            self._address = address if _GOOGLES_VERSION.search(address) else f"{address}/v1beta"
        self._keys = KeyRing(config)
        self._under_way = 0
        timeout = httpx2.Timeout(config.timeout_s, connect=config.connect_timeout_s)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        self._client = httpx2.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)

    @property
    def is_busy(self) -> bool:
        return self._under_way > 0

    async def probe(self) -> str:
        for number, key in enumerate(self._keys.all, 1):
            call = Call("models", b"", "")
            try:
                response = await self._client.get(f"{self._address}/models", headers=self._headers(call, key))
            except httpx2.HTTPError as error:
                return f"{self._address} cannot be reached: {_said(error)}"
            # Google says 400 of a key that it does not know.
            if response.status_code in (401, 403) or (self._is_gemini and response.status_code == 400):
                which = f"key {number} of {len(self._keys.all)}" if len(self._keys.all) > 1 else "the key"
                return f"{self._address} does not accept {which} (HTTP {response.status_code})"
            if response.status_code >= 500:
                return f"{self._address} answers HTTP {response.status_code}"
        return ""

    async def aclose(self) -> None:
        await self._client.aclose()

    @contextlib.asynccontextmanager
    async def send(self, call: Call) -> AsyncIterator[HttpReply]:
        if self._under_way >= self._config.max_concurrency:
            raise RateLimited(
                f"{self._config.max_concurrency} requests to {self.name} are under way",
                **{"scope": f"provider {self.name}", "limit": self._config.max_concurrency, "window": None},
            )
        self._under_way += 1
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._leave)
            keys = self._keys.candidates(call.model)
            if not keys:
                raise Unreachable(f"no key of {self.name} may be used for {call.model}")
            for key in keys:
                attempt = await stack.enter_async_context(contextlib.AsyncExitStack())
                response = await self._begin(attempt, call, key)
                wait_s = retry_after_s(response.headers)
                if key is keys[-1] or not self._keys.rest(key, response.status_code, wait_s):
                    break
                await attempt.aclose()
            if response.is_redirect:
                raise Unreachable(f"{self.name} redirects to another address; set its base_url to that one")
            secrets = (key.secret, *self._config.headers.values())
            yield HttpReply(response, self.name, self._config.timeout_s, secrets)

    def _leave(self) -> None:
        self._under_way -= 1

    async def _begin(self, stack: contextlib.AsyncExitStack, call: Call, key: Key) -> httpx2.Response:
        path = path_of(call.format, call.model, call.stream) if self._is_gemini else _PATHS[call.format]
        url = self._address + path + (f"?{call.query}" if call.query else "")
        headers = self._headers(call, key)
        limit_s = call.timeout_s or self._config.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await stack.enter_async_context(
                    self._client.stream("POST", url, content=call.body, headers=headers)
                )
        except (httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise Unreachable(f"{self.name} cannot be reached: connecting took too long") from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise UpstreamTimeout(f"{self.name} did not answer within {limit_s:g} s") from error
        except httpx2.HTTPError as error:
            raise Unreachable(f"{self.name} cannot be reached: {_said(error)}") from error

    def _headers(self, call: Call, key: Key) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept-encoding": "identity", **call.headers}
        headers["accept"] = "text/event-stream" if call.stream else "application/json"
        if self._is_anthropic:
            headers.setdefault("anthropic-version", _VERSION)
            if key.secret:
                headers["x-api-key"] = key.secret
        elif self._is_gemini and key.secret:
            headers["x-goog-api-key"] = key.secret
        elif key.secret:
            headers["authorization"] = f"Bearer {key.secret}"
        return {**headers, **self._config.headers}


def _said(error: Any) -> str:
    return str(error)[:300] or type(error).__name__

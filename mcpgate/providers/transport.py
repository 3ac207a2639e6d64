"""How requests get to a provider: over our own connections (http1.py), or through httpx2 where those do not reach."""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from mcpgate.errors import UpstreamTimeout
from mcpgate.llm.provider import UPLOAD_S, Unreachable, Upload
from mcpgate.upstream.bodies import tls


class Response(Protocol):
    """An answer that has begun."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, compressed if it is. Raises Unreachable, UpstreamTimeout."""
        ...

    async def aclose(self) -> None:
        """Done with it, whether or not all of it was read."""
        ...


class Transport(Protocol):
    """Requests to one address."""

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | Upload, limit_s: float, silence_s: float
    ) -> Response:
        """`path`: what follows the address. `limit_s`: until the answer begins, once an upload has been sent.
        `silence_s`: how long its body may pause. Raises Unreachable, UpstreamTimeout; ValueError for headers that
        cannot be sent; what the parts of an upload do."""
        ...

    async def aclose(self) -> None: ...


def transport_to(name: str, address: str, connect_timeout_s: float) -> Transport:
    """The transport for an address. `name`: of whom is reached, for messages."""
    # httpx2 writes names with other letters as the DNS has them.
    if _is_direct(address) and address.isascii() and importlib.util.find_spec("httptools") is not None:
        from mcpgate.providers.http1 import Pool

        return Pool(name, address, connect_timeout_s, tls() if address.startswith("https:") else None)
    return _Httpx(name, address, connect_timeout_s)


def _is_direct(address: str) -> bool:
    """Whether no proxy of the environment stands between."""
    parts = urlsplit(address)
    proxies = getproxies()
    return not (parts.scheme in proxies or "all" in proxies) or bool(proxy_bypass(parts.hostname or ""))


class _Httpx:
    """Through proxies, and on interpreters that httptools is not built for."""

    def __init__(self, name: str, address: str, connect_timeout_s: float) -> None:
        self._name, self._address = name, address
        self._connect_timeout_s = connect_timeout_s
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        self._client = httpx2.AsyncClient(verify=tls(), limits=limits, follow_redirects=False)

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | Upload, limit_s: float, silence_s: float
    ) -> Response:
        content: bytes | AsyncIterator[bytes] = body if isinstance(body, bytes) else body.whole()
        if isinstance(body, Upload):
            headers = {**headers, "content-length": str(body.length)}
            limit_s += UPLOAD_S
        timeout = httpx2.Timeout(silence_s, connect=self._connect_timeout_s)
        request = self._client.build_request(
            method, self._address + path, headers=headers, content=content, timeout=timeout
        )
        # A read may wait for the head; from there on, for a part of the body.
        waits = request.extensions["timeout"]
        waits["read"] = self._connect_timeout_s + limit_s
        try:
            async with asyncio.timeout(self._connect_timeout_s + limit_s):
                response = await self._client.send(request, stream=True)
            waits["read"] = silence_s
        except (httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise Unreachable(f"{self._name} cannot be reached: connecting took too long") from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise UpstreamTimeout(f"{self._name} did not answer within {limit_s:g} s") from error
        except httpx2.HTTPError as error:
            raise Unreachable(f"{self._name} cannot be reached: {_said(error)}") from error
        return _HttpxResponse(response, self._name)

    async def aclose(self) -> None:
        await self._client.aclose()


class _HttpxResponse:
    def __init__(self, response: httpx2.Response, name: str) -> None:
        self._response, self._name = response, name
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(self._response.aiter_raw()) as pieces:
                async for piece in pieces:
                    yield piece
        except httpx2.TimeoutException as error:
            silent_s = self._response.request.extensions["timeout"]["read"]
            raise UpstreamTimeout(f"{self._name} fell silent for {silent_s:g} s") from error
        except httpx2.HTTPError as error:
            raise Unreachable(f"the answer of {self._name} broke off: {_said(error)}") from error

    async def aclose(self) -> None:
        await self._response.aclose()


def _said(error: Exception) -> str:
    return str(error)[:300] or type(error).__name__

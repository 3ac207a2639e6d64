"""HTTP for both remote transports: one client, bodies of bounded size, readable refusals. It knows nothing about
MCP: see remote.py and sse.py."""

import asyncio
import contextlib
import datetime
import email.utils
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from mcpgate import __version__, jsontext
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.telemetry.trace import parse_trace
from mcpgate.upstream.bearer import Bearer
from mcpgate.upstream.bodies import decoded, tls
from mcpgate.upstream.challenges import Challenge, parse_challenge
from mcpgate.upstream.framing import too_long
from mcpgate.upstream.secrets import Secrets, place
from mcpgate.upstream.untrusted import one_line

_MIB = 1024 * 1024
_MAX_REFUSAL = 64 * 1024
"""Bytes read of a refusal's body."""
_REFUSAL_S = 5.0
_KEEP_IDLE_S = 3.0
"""Many servers close connections that were idle for 5 s, and a request sent at that moment is lost."""
_MAX_REDIRECTS = 3
_MAX_COOKIE_CHARS = 32 * 1024
_MAX_SAID = 300
"""Characters of a refusal's body that go into the error's message; its data has more."""
_LONGEST_RETRY_S = 86_400.0
_TITLE = re.compile(r"(?is)<title[^>]*>(.{1,200}?)</title>")


class Web:
    """Requests to one upstream. Everything it raises is an UpstreamError or an httpx2.HTTPError; see `say`."""

    def __init__(self, config: UpstreamConfig, secrets: Secrets, bearer: Bearer, client: httpx2.AsyncClient) -> None:
        assert config.url is not None
        self._secrets, self._bearer, self._client = secrets, bearer, client
        try:
            self.url = httpx2.URL(config.url)
        except httpx2.InvalidURL as error:
            raise UpstreamError(f"its url cannot be used: {error}") from error
        self.limit = config.max_message_mib * _MIB

    @asynccontextmanager
    async def exchange(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """One request and its response, which is closed when the block exits. Redirects are followed only within
        the same origin, for which headers and secrets were configured. Where another token may help against a refusal,
        the request is sent once more."""
        token, renewed = await self._bearer.token(), False
        for _ in range(_MAX_REDIRECTS + 2):
            fields = {**headers, **({} if token is None else {"authorization": f"Bearer {token.access}"})}
            request = self._client.build_request(method, url, headers=fields, content=content)
            response = await self._client.send(request, stream=True, follow_redirects=False)
            try:
                self._forget_cookies()
                if response.status_code in (401, 403) and not renewed:
                    renewed = True
                    if (other := await self._bearer.again(token, _challenge(response))) is not None:
                        token = other
                        continue
                elif token is not None and response.status_code != 401:
                    self._bearer.accepted(token)
                response.extensions["mcpgate_token"] = token
                target = _redirect(response)
                if target is None:
                    yield response
                    return
                same = (target.scheme, target.host, target.port) == (url.scheme, url.host, url.port)
                if not same or not (response.status_code in (307, 308) or method == "GET"):
                    raise UpstreamError(
                        f"HTTP {response.status_code}: it redirects to {place(str(target))}, which is not followed",
                        server_status=response.status_code,
                    )
                url = target.copy_with(userinfo=url.userinfo)
            finally:
                await response.aclose()
        raise UpstreamError("it redirects too often")

    def _forget_cookies(self) -> None:
        """Drop all cookies once they get large. A load balancer needs a few; a server must not store more with us."""
        jar = self._client.cookies.jar
        if sum(len(cookie.name) + len(cookie.value or "") for cookie in jar) > _MAX_COOKIE_CHARS:
            self._client.cookies.clear()

    async def body(self, response: httpx2.Response) -> bytes:
        """The whole body, decoded. Raises UpstreamError as soon as it exceeds max_message_mib."""
        length = response.headers.get("content-length", "")
        if (
            length.isdigit()
            and len(length) < 18
            and int(length) > self.limit
            and "content-encoding" not in response.headers
        ):
            raise UpstreamError(too_long(int(length), self.limit))
        # Not a list of pieces: a piece may be one byte, and each object costs forty.
        found = bytearray()
        async with contextlib.aclosing(decoded(response)) as pieces:
            async for piece in pieces:
                found += piece
                if len(found) > self.limit:
                    raise UpstreamError(too_long(len(found), self.limit))
        return bytes(found)

    async def refusal(self, response: httpx2.Response) -> tuple[UpstreamError, Any]:
        """A response with status 300 or above as an error, and its body if that is JSON."""
        status = response.status_code
        content = await self._beginning(response)
        said, parsed = _words(content, response.headers.get("content-type", ""))
        said = self._secrets.mask(said)
        text = f"HTTP {status} {one_line(response.reason_phrase, 60)}".rstrip()
        if shown := one_line(said, _MAX_SAID):
            text += f": {shown}"
        data: dict[str, Any] = {"server_status": status, **({"server_said": said} if said else {})}
        if (wait_s := _retry_after(response.headers.get("retry-after", ""))) is not None:
            data["server_retry_after_s"] = wait_s
            text += f" (retry after {wait_s:g} s)"
        if status in (401, 403):
            sent = response.extensions.get("mcpgate_token")
            return await self._bearer.refused(sent, _challenge(response), text, data), parsed
        return UpstreamError(text, **data), parsed

    async def _beginning(self, response: httpx2.Response) -> bytes:
        found = bytearray()
        with contextlib.suppress(TimeoutError, httpx2.HTTPError, UpstreamError):
            async with asyncio.timeout(_REFUSAL_S), contextlib.aclosing(decoded(response)) as pieces:
                async for piece in pieces:
                    found += piece[:_MAX_REFUSAL]
                    if len(found) >= _MAX_REFUSAL:
                        break
        return bytes(found[:_MAX_REFUSAL])

    def say(self, error: Exception) -> UpstreamError:
        """A network failure as an error with a readable message."""
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
            text = f"cannot connect to {place(str(self.url))}: {error}"
        elif isinstance(error, (httpx2.NetworkError, httpx2.RemoteProtocolError)):
            text = f"the connection broke: {error}" if str(error) else "the connection broke"
        return UpstreamError(one_line(self._secrets.mask(text)))


@asynccontextmanager
async def open_web(config: UpstreamConfig, secrets: Secrets, bearer: Bearer) -> AsyncIterator[Web]:
    async with httpx2.AsyncClient(
        headers={"user-agent": f"mcpgate/{__version__}", **config.headers, "accept-encoding": "identity"},
        verify=tls(),
        timeout=httpx2.Timeout(config.connect_timeout_s, read=None),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=_KEEP_IDLE_S),
    ) as client:
        yield Web(config, secrets, bearer, client)


def trace_of(message: Mapping[str, Any]) -> dict[str, str]:
    """The headers that repeat the trace in a request's `_meta`, for what stands in front of the server."""
    meta = message.get("params", {}).get("_meta")
    if not isinstance(meta, dict) or "traceparent" not in meta:
        return {}
    trace = parse_trace(meta["traceparent"], meta.get("tracestate"))
    return {} if trace is None else trace.headers()


def kind_of(response: httpx2.Response) -> str:
    """The media type, without its parameters."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _challenge(response: httpx2.Response) -> Challenge:
    return parse_challenge(response.status_code, response.headers.get("www-authenticate", ""))


def _redirect(response: httpx2.Response) -> httpx2.URL | None:
    location = response.headers.get("location")
    if response.status_code not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        return response.request.url.join(location)
    except httpx2.InvalidURL as error:
        raise UpstreamError(
            "it redirects to something that is not a URL", server_status=response.status_code
        ) from error


def _words(content: bytes, kind: str) -> tuple[str, Any]:
    """The text of a refusal, and its JSON."""
    if "html" in kind.lower():
        title = _TITLE.search(content.decode("utf-8", "replace"))
        return (one_line(title.group(1)) if title else ""), None
    try:
        parsed = jsontext.loads(content.removeprefix(b"\xef\xbb\xbf"), "replace")
    except ValueError:
        return content.decode("utf-8", "replace").strip(), None
    if isinstance(parsed, list) and len(parsed) == 1:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return (parsed if isinstance(parsed, str) else content.decode("utf-8", "replace")), parsed
    found: list[str] = []
    for name in ("error", "error_description", "message", "detail", "title"):
        value = parsed.get(name)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value and value not in found:
            found.append(value)
    return (", ".join(found) or (content.decode("utf-8", "replace") if parsed else "")), parsed


def _retry_after(value: str) -> float | None:
    """The value in seconds, given as seconds or as a date."""
    if value.isascii() and value.isdigit() and len(value) < 18:
        return min(float(value), _LONGEST_RETRY_S)
    try:
        at = email.utils.parsedate_to_datetime(value)
        wait_s = (at - datetime.datetime.now(datetime.UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, wait_s), _LONGEST_RETRY_S)

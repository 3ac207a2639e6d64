"""How requests get to Amazon Bedrock: signed with credentials of AWS, or with an API key; streams come as AWS's binary
events, and go on as server-sent ones. The format itself: bedrock.py."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.exceptions import BotoCoreError, NoCredentialsError

from mcpgate import jsontext
from mcpgate.config.llm import AwsConfig, ProviderConfig
from mcpgate.errors import UpstreamTimeout
from mcpgate.llm.metering import decoded
from mcpgate.llm.provider import Call, Unreachable
from mcpgate.providers.http import HttpProvider, HttpReply
from mcpgate.providers.keys import Key
from mcpgate.providers.renewal import Renewal, no_credentials
from mcpgate.providers.transport import Response

FORMATS = frozenset(("bedrock", "bedrock_embedding"))
_SERVICE = "bedrock"
_FETCH_S = 30.0
_LONG = 256 * 1024
"""Bytes; longer bodies are hashed off the event loop."""
_PRELUDE = 12
_LARGEST_EVENT = 16 * 1024 * 1024
_AT_ONCE = 100
"""Events that are decoded before others get a turn."""
_NAME = re.compile(r"[A-Za-z]{1,100}")
_STATUSES = {
    "internalServerException": 500,
    "modelStreamErrorException": 502,
    "serviceUnavailableException": 503,
    "throttlingException": 429,
    "validationException": 400,
}
"""Of exceptions within a stream."""
_MODEL_FAILED = 424
"""The status of ModelErrorException: not the request is wrong, but the model behind Bedrock."""


class AwsSignatures:
    """Signs requests (SigV4)."""

    def __init__(self, name: str, config: AwsConfig) -> None:
        self._name, self._config = name, config
        self._source: Any = None
        """Of botocore, where it looks for credentials itself."""
        self._frozen: ReadOnlyCredentials | None = None
        self._renewal = Renewal(self._fetch, _FETCH_S)
        if config.access_key_id is not None and config.secret_access_key is not None:
            token = config.session_token.get_secret_value() if config.session_token else None
            self._frozen = ReadOnlyCredentials(
                config.access_key_id.get_secret_value(), config.secret_access_key.get_secret_value(), token
            )

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        frozen = self._frozen
        if frozen is None or (isinstance(self._source, RefreshableCredentials) and self._source.refresh_needed()):
            frozen = self._frozen = await self._fetched()
        if len(body) > _LONG:
            return await asyncio.to_thread(self._signed, frozen, method, url, headers, body)
        return self._signed(frozen, method, url, headers, body)

    async def aclose(self) -> None:
        await self._renewal.aclose()

    async def _fetched(self) -> ReadOnlyCredentials:
        try:
            return await self._renewal.get()
        except TimeoutError:
            raise UpstreamTimeout(f"AWS gave no credentials for {self._name} in {_FETCH_S:g} s") from None
        except (BotoCoreError, OSError, ValueError, RuntimeError) as error:
            raise no_credentials(f"there are no credentials of AWS for {self._name}", error) from error

    def _fetch(self) -> ReadOnlyCredentials:
        if self._source is None:
            session = botocore.session.Session(profile=self._config.profile)
            session.set_config_variable("region", self._config.region)
            found = session.get_credentials()
            if found is None:
                raise NoCredentialsError
            self._source = found
        frozen: ReadOnlyCredentials = self._source.get_frozen_credentials()
        return frozen

    def _signed(
        self, frozen: ReadOnlyCredentials, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Mapping[str, str]:
        """What proves who asks: the headers that AWS reads, and no others, are signed."""
        read = {name: text for name, text in headers.items() if _is_read(name)}
        request = AWSRequest(method, url, {**read, "host": urlsplit(url).netloc.rpartition("@")[2]}, body)
        SigV4Auth(frozen, _SERVICE, self._config.region).add_auth(request)
        made = {name.lower(): text for name, text in request.headers.items()}
        return {name: text for name, text in made.items() if name != "host" and name not in read}


def _is_read(header: str) -> bool:
    return header == "content-type" or header.startswith("x-amz-")


class BedrockReply(HttpReply):
    """Errors in the common form, and events that are server-sent."""

    def __init__(self, response: Response, *args: Any, is_stream: bool) -> None:
        super().__init__(response, *args)
        self._is_stream = is_stream and self.status < 400
        if self.status == _MODEL_FAILED:
            self.status = 502

    async def error(self) -> bytes:
        """AWS says the type in a header."""
        body = await super().error()
        said = decoded(body)
        message = (said.get("message") or said.get("Message")) if isinstance(said, dict) else None
        if not isinstance(message, str):
            return body
        return jsontext.dumps({"error": {"type": error_type(self.headers), "message": message}})

    def chunks(self) -> AsyncGenerator[bytes, None]:
        chunks = super().chunks()
        return self._events(chunks) if self._is_stream else chunks

    async def _events(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        frames = Frames()
        async with contextlib.aclosing(chunks) as pieces:
            async for piece in pieces:
                found: list[bytes] = []
                broken: Exception | None = None
                try:
                    for frame in frames.feed(piece):
                        found.append(server_sent(frame))
                        if len(found) >= _AT_ONCE:
                            yield b"".join(found)
                            found.clear()
                            await asyncio.sleep(0)
                except (ValueError, ParserError) as error:
                    broken = error
                if found:  # what came before the error has come
                    yield b"".join(found)
                if broken is not None:
                    words = f"the stream of {self._name} is none of AWS's: {str(broken)[:200]}"
                    raise Unreachable(words) from broken
        if frames.rest:
            raise Unreachable(f"the stream of {self._name} broke off within an event")


def error_type(headers: Mapping[str, str]) -> str:
    """Such as `ThrottlingException`."""
    return headers.get("x-amzn-errortype", "").partition(":")[0][:100] or "upstream_error"


class Frames:
    """Whole binary events out of chunks that end anywhere."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def rest(self) -> int:
        """Bytes after the last whole event."""
        return len(self._held)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Raises ValueError for an event that is too long, or is none."""
        held = self._held
        held += chunk
        begin = 0
        while len(held) - begin >= _PRELUDE:
            size = int.from_bytes(held[begin : begin + 4])
            if not _PRELUDE + 4 <= size <= _LARGEST_EVENT:
                raise ValueError(f"an event of {size:,} bytes")
            if len(held) - begin < size:
                break
            yield bytes(held[begin : begin + size])
            begin += size
        del held[:begin]


def server_sent(frame: bytes) -> bytes:
    """One binary event as a server-sent one, in the form of the service's union: `{"messageStop": {...}}`. An exception
    becomes an `error`. Raises ValueError, ParserError."""
    buffer = EventStreamBuffer()
    buffer.add_data(frame)
    try:
        event = next(buffer)
    except StopIteration:
        raise ValueError("an event that is not whole") from None
    except ParserError:
        raise
    except Exception as error:  # of bytes that are no headers, botocore raises whatever comes
        raise ValueError(f"its headers cannot be read: {error!r}"[:200]) from error
    kind = event.headers.get(":message-type")
    if kind != "event":
        return _error(event)
    name = event.headers.get(":event-type")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("an event without a name")
    # A line break within JSON is a blank; within a server-sent event it would end a line.
    payload = event.payload.replace(b"\n", b" ").replace(b"\r", b" ") or b"{}"
    return b'data: {"%s":%s}\n\n' % (name.encode(), payload)


def _error(event: Any) -> bytes:
    headers: Mapping[str, Any] = event.headers
    said = decoded(event.payload)
    said = said if isinstance(said, dict) else {}
    name = str(headers.get(":exception-type") or headers.get(":error-code") or "internalServerException")[:100]
    message = said.get("message") or said.get("Message") or headers.get(":error-message")
    code = _STATUSES.get(name, 500)
    error = {"type": name, "message": message if isinstance(message, str) else "", "code": code}
    return b"event: error\ndata: %s\n\n" % jsontext.dumps({"type": "error", "error": error})


class BedrockProvider(HttpProvider):
    """Bedrock in one region."""

    formats = FORMATS

    def __init__(self, name: str, config: ProviderConfig) -> None:
        has_key = config.api_key is not None or bool(config.keys)
        signs = config.aws is not None and not has_key
        super().__init__(name, config, AwsSignatures(name, config.aws) if signs and config.aws else None)

    def _path(self, call: Call) -> str:
        """Slashes and colons of an ARN are part of its name."""
        model = f"/model/{quote(call.model, safe='')}"
        if call.format == "bedrock_embedding":
            return f"{model}/invoke"
        return f"{model}/converse" + ("-stream" if call.stream else "")

    def _headers(self, call: Call, key: Key) -> dict[str, str]:
        accept = "application/vnd.amazon.eventstream" if call.stream else "application/json"
        return {**super()._headers(call, key), "accept": accept}

    def _reply(self, response: Response, call: Call, secrets: tuple[str, ...], mark: str) -> HttpReply:
        about = (self.name, self._config.timeout_s, secrets, self._leave, mark)
        return BedrockReply(response, *about, is_stream=call.stream)

    def _probe_request(self) -> tuple[str, str, bytes]:
        """One that costs nothing, because it is wrong: Bedrock looks at who asks first."""
        return "POST", self._path(Call("bedrock", b"", "mcpgate.probe")), b"{}"

    def _is_refused(self, response: Response, key: Key) -> bool:
        """Credentials that may not use this one model are good ones."""
        denied = error_type(response.headers) == "AccessDeniedException" and not key.secret
        return response.status in (401, 403) and not denied

"""Masks the secrets of one upstream's configuration in texts. Pure. It knows what is configured and errs on the
side of hiding; anything else that looks like a secret is masked as in the log."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, quote_plus, unquote, urlsplit

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.telemetry import logs
from mcpgate.upstream.untrusted import MAX_DATA, MAX_TEXT, cut, fits

_MASK = "********"
_SHORTEST = 4
_MOST_LEARNED = 200
_PLAIN_VALUES = frozenset(
    "debug development error false http https info localhost none null prod production stdio true utf-8 warn warning "
    "application/json basic bearer text/event-stream token".split()
)
"""Values that reveal nothing: hiding them would only garble messages."""
_PLAIN_HEADERS = frozenset(("accept", "accept-encoding", "accept-language", "content-type", "user-agent"))
_PROGRAM = re.compile(r"[a-z]+(?:[-_.][a-z]+)*(?:(?:@|[=<>~]=)[0-9a-z.*-]+)?")
"""Matches the name of a program or package: the first argument of a launcher such as npx, uvx or python."""
_PLACE = re.compile(r"(?:[~.]{0,2}/|@[a-z0-9-]+/)[^:=]*|[A-Za-z]:\\[^=]*")
"""A path, or a package with a scope."""
_WORD = re.compile(r"[A-Za-z]{1,11}|[0-9]{1,8}")
"""Masked only as a whole word: `info` is part of many words."""
_TOKEN = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9._~%-]{16,}")
"""A segment of a URL's path that serves as a key."""


class Secrets:
    """Masks the secrets of one `mcpServers` entry."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._configured = list(_values(config))
        self._learned: dict[str, None] = {}
        self._compile()

    def learn(self, *values: str) -> None:
        """Mask these too: what came along at run time, such as tokens. The latest are kept."""
        new = [value for value in values if value and value not in self._learned]
        if new:
            self._learned.update(dict.fromkeys(new))
            for value in list(self._learned)[: max(0, len(self._learned) - _MOST_LEARNED)]:
                del self._learned[value]
            self._compile()

    def _compile(self) -> None:
        literals: set[str] = set()
        for value in (*self._configured, *self._learned):
            value = value.strip()
            if len(value) >= _SHORTEST and value.lower() not in _PLAIN_VALUES:
                literals.update(*map(_spellings, {value, unquote(value)}))
        longest_first = sorted(
            (text for text in literals if len(text) >= _SHORTEST), key=lambda text: (-len(text), text)
        )
        self._longest = len(longest_first[0]) if longest_first else 0
        self._pattern = re.compile("|".join(map(_literal, longest_first))) if longest_first else None

    def mask(self, text: str, limit: int = MAX_TEXT) -> str:
        """At most `limit` characters of a text, without secrets and without a partial secret at the cut."""
        whole = len(text) <= limit + self._longest
        if not whole:
            text = text[: limit + self._longest]
        if self._pattern is not None:
            text = self._pattern.sub(_MASK, text)
        text = logs.mask(text)
        return cut(text if whole else text[: max(0, len(text) - self._longest)] + "…", limit)

    def mask_data(self, value: Any) -> Any:
        """The same for every text in an error's data; None if the data is too large to keep."""
        return self._masked(value) if fits(value, MAX_DATA) else None

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.mask(value, MAX_DATA)
        if isinstance(value, dict):
            return {key: self._masked(inner) for key, inner in value.items()}
        return [self._masked(inner) for inner in value] if isinstance(value, list) else value


def place(url: str) -> str:
    """Where a URL points, without its secrets: scheme, host, port and path."""
    parts = urlsplit(url)
    path = "/".join(_MASK if _TOKEN.fullmatch(part) else part for part in parts.path.split("/"))
    return f"{parts.scheme}://{_address(parts)}{path}"


def _address(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _spellings(value: str) -> set[str]:
    """The spellings of a value in URLs, in JSON and in Python's messages."""
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    written = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    return {value, *quoted, *written}


def _literal(text: str) -> str:
    pattern = re.escape(text)
    return rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])" if _WORD.fullmatch(text) else pattern


def _values(config: UpstreamConfig) -> Iterator[str]:
    for value in config.env.values():
        yield from _parts(value)
    for name, value in config.headers.items():
        if name.lower() not in _PLAIN_HEADERS:
            yield from _header_parts(value)
    yield from _argument_values(config.args)
    if config.url is not None:
        yield from _url_parts(config.url)
    if config.auth is not None:
        yield from filter(None, (config.auth.client_secret, config.auth.private_key))


def _parts(value: str) -> Iterator[str]:
    """A value, and the parts of it that are secrets by themselves."""
    yield value
    if "\n" in value:
        yield from (line for line in value.splitlines() if len(line) >= 16)
    if "://" in value:
        yield from _url_parts(value)


def _url_parts(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        yield url
        return
    if url != place(url):
        yield url
    userinfo, at, _ = parts.netloc.rpartition("@")
    if at:
        user, _, password = userinfo.partition(":")
        yield from (userinfo, unquote(userinfo), user, password)
        yield base64.b64encode(unquote(userinfo).encode()).decode()
        yield base64.b64encode(userinfo.encode()).decode()
    if parts.query:
        yield parts.query
        yield from (value for _, value in parse_qsl(parts.query))
        yield from (pair.partition("=")[2] for pair in parts.query.split("&"))
    if parts.fragment:
        yield parts.fragment
    yield from (part for part in parts.path.split("/") if _TOKEN.fullmatch(part))


def _header_parts(value: str) -> Iterator[str]:
    """`Bearer x` hides x too; `Basic …` what it encodes; `a=b; c=d` b and d."""
    yield from _parts(value)
    for word in re.split(r"[\s;,]+", value):
        yield word
        if len(secret := word.partition("=")[2]) >= 8:
            yield secret
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except ValueError:
            return
        yield from (f"{user}:{password}", password)


def _argument_values(arguments: Iterable[str]) -> Iterator[str]:
    """All arguments except flags, paths, and the name of the program that a launcher starts."""
    named, before = False, ""
    for argument in arguments:
        flag = before if before.startswith("-") else ""
        before = argument
        if argument.startswith("-"):
            _, equals, value = argument.partition("=")
            if equals and not _PLACE.fullmatch(value):
                yield from _parts(value)
            continue
        program = (not named and not flag.startswith("--")) or flag == "-m"
        named = named or program
        if _PLACE.fullmatch(argument) or (program and _PROGRAM.fullmatch(argument)):
            continue
        yield from _parts(argument)
        if len(value := argument.partition("=")[2]) >= _SHORTEST and not _PLACE.fullmatch(value):
            yield from _parts(value)

"""Whose request it is that a proxy passes on, by the headers of proxies that are trusted. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence

from mcpgate.addresses import Network, is_in, parse_address
from mcpgate.errors import InvalidRequest

_PAIR = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,\s]*)\s*')
_MOST_HOPS = 64


def client_of(peer: str | None, headers: Mapping[str, str], trusted: Sequence[Network]) -> str | None:
    """The address of the client: the right-most one that no trusted proxy has. None where a proxy does not tell it.
    Raises InvalidRequest for headers that contradict each other, one of which the client has made up."""
    if not is_in(peer, trusted):
        return peer
    found = [
        _right_most(list(read(headers[name])), trusted)
        for name, read in (("x-forwarded-for", _listed), ("forwarded", _forwarded_for))
        if name in headers
    ]
    if len(found) == 2 and found[0] != found[1]:
        raise InvalidRequest("x-forwarded-for and forwarded name different clients")
    return found[0] if found else peer


def scheme_of(peer: str | None, scheme: str, headers: Mapping[str, str], trusted: Sequence[Network]) -> str:
    """http or https, as the client has it."""
    told = headers.get("x-forwarded-proto")
    if told is None or not is_in(peer, trusted):
        return scheme
    told = told.rpartition(",")[2].strip().lower()
    return told if told in ("http", "https") else scheme


def _right_most(hops: list[str | None], trusted: Sequence[Network]) -> str | None:
    found = None
    for hop in reversed(hops[-_MOST_HOPS:]):
        found = hop
        if not is_in(hop, trusted):
            break
    return found


def _listed(value: str) -> Iterator[str | None]:
    for part in value.split(","):
        if part.strip():
            yield _address(part.strip())


def _forwarded_for(value: str) -> Iterator[str | None]:
    """The `for` of each element of a Forwarded header (RFC 7239)."""
    for element in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', value) if value.count('"') <= _MOST_HOPS else ():
        pairs = {name.lower(): text for name, text in _PAIR.findall(element)}
        if "for" in pairs:
            yield _address(pairs["for"].strip('"'))


def _address(text: str) -> str | None:
    """An address without its port; None for `unknown` and made-up names."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    seen = parse_address(text)
    return None if seen is None else str(seen)

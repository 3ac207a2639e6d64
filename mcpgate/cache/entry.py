"""One kept answer, and how it is written down. A damaged or foreign text is not an entry."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Literal, Protocol

import orjson

from mcpgate.errors import McpgateError

Kind = Literal["chat", "embedding", "tool", "resource"]
_CHECKSUM = 16
_NONCE = 12


class Unreadable(ValueError):
    """What is stored is no entry: damaged, or encrypted with another key."""


def tags_of(text: str | bytes) -> tuple[str, ...]:
    """Tags as stores without lists keep them. Raises Unreadable."""
    try:
        tags = orjson.loads(text)
    except ValueError:
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise Unreadable("its tags are damaged")
    return tuple(tags)


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as stores see it: what they select by, and the rest as bytes."""

    id: str
    """The fingerprint of what was asked, in hex: see fingerprint.py."""
    kind: Kind
    tenant: str
    key: str
    """The id of the key whose request brought it."""
    server: str
    tool: str
    provider: str
    model: str
    tags: tuple[str, ...]
    partition: str
    """What questions of the same meaning share: see semantic.py. Empty for entries that only equal requests get."""
    at: float
    """When the answer came, epoch seconds."""
    until: float
    """When it is deleted, epoch seconds."""
    value: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes, without what databases add."""
        return len(self.value) + len(self.partition) + len(self.tenant) + 128


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One answer that is kept."""

    id: str
    kind: Kind
    tenant: str
    body: bytes = field(repr=False)
    """The whole answer as JSON, in the format that it was asked in."""
    at: float
    fresh_until: float
    """When its time is over, epoch seconds."""
    until: float
    """When it is deleted: later, if it may be served stale."""
    key: str = ""
    server: str = ""
    tool: str = ""
    provider: str = ""
    model: str = ""
    tags: tuple[str, ...] = ()
    partition: str = ""
    question: str = field(default="", repr=False)
    """The last turn of the user, for questions that mean the same."""
    prepared: bytes = field(default=b"", repr=False)
    """The question as it is compared: see semantic/semantic.py."""
    cost: int = 0
    """Nano-dollars that it did cost, and that a hit saves."""
    input_tokens: int = 0
    output_tokens: int = 0
    right: int = 0
    wrong: int = 0
    """How often it was found to be the answer to another question, or not."""

    @property
    def size(self) -> int:
        """Bytes in memory, roughly."""
        return len(self.body) + len(self.question) + len(self.prepared) + 1000


class Sealer(Protocol):
    def seal(self, text: bytes, about: bytes) -> bytes: ...

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """Raises Unreadable."""
        ...


class Checksum:
    """Tells damaged entries from whole ones."""

    def seal(self, text: bytes, about: bytes) -> bytes:
        return _digest(text, about) + text

    def open(self, sealed: bytes, about: bytes) -> bytes:
        text = sealed[_CHECKSUM:]
        if _digest(text, about) != sealed[:_CHECKSUM]:
            raise Unreadable("the entry is damaged")
        return text


class Cipher:
    """AES-256-GCM with a key derived from a configured text."""

    def __init__(self, secret: str) -> None:
        # Imported here: it takes 30 ms that only gateways with a key pay.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        # 16 characters of a generated secret cannot be guessed, so no slow derivation is needed.
        self._cipher = AESGCM(hashlib.blake2b(secret.encode(), digest_size=32, person=b"mcpgate cache").digest())

    def seal(self, text: bytes, about: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, text, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
        except (InvalidTag, ValueError) as error:
            raise Unreadable("the entry is damaged, or encrypted with another key") from error


def _digest(text: bytes, about: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_CHECKSUM, salt=hashlib.blake2b(about, digest_size=16).digest()).digest()


def to_row(entry: CacheEntry, sealer: Sealer) -> Row:
    rest = {
        "fresh_until": entry.fresh_until,
        "question": entry.question,
        "cost": entry.cost,
        "tokens": [entry.input_tokens, entry.output_tokens],
        "found": [entry.right, entry.wrong],
        "prepared": len(entry.prepared),
    }
    # Lone surrogates, which clients may send, are no text for orjson.
    text = json.dumps(rest).encode() + b"\n" + entry.prepared + entry.body
    return Row(
        *(entry.id, entry.kind, entry.tenant, entry.key, entry.server, entry.tool, entry.provider, entry.model),
        *(entry.tags, entry.partition, entry.at, entry.until),
        value=sealer.seal(text, _about(entry.id, entry.tenant)),
    )


def of_row(row: Row, sealer: Sealer) -> CacheEntry:
    """Raises Unreadable."""
    head, _, content = sealer.open(row.value, _about(row.id, row.tenant)).partition(b"\n")
    try:
        rest = orjson.loads(head)
        (incoming, outgoing), (right, wrong) = rest["tokens"], rest["found"]
        fresh_until, question, cost = float(rest["fresh_until"]), str(rest["question"]), int(rest["cost"])
        size = int(rest["prepared"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"the entry cannot be read: {error}") from error
    return CacheEntry(
        *(row.id, row.kind, row.tenant, content[size:], row.at, fresh_until, row.until, row.key, row.server, row.tool),
        *(row.provider, row.model, row.tags, row.partition, question, content[:size], cost, incoming, outgoing),
        *(right, wrong),
    )


def _about(id: str, tenant: str) -> bytes:
    """What an entry is bound to: one that was moved to another place in the store cannot be read."""
    return f"{id}\n{tenant}".encode("utf-8", "surrogatepass")


class CacheUnavailable(McpgateError):
    """The store of the cache cannot be used; whoever asked goes on without it."""

    code, http_status = "unavailable", 503

"""Fingerprints: two requests have the same one only if they are equal in everything that decides the answer, and of the
same tenant. The same in every process and version, whatever the order of keys. Pure.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from mcpgate.config.cache import Scope
from mcpgate.governance.callers import Caller

_VERSION = b"mcpgate cache 1"
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def tenant_of(caller: Caller, scope: Scope | None, narrow: bool = False) -> str:
    """Whose entries a caller shares. `narrow`: not beyond the user. Without a team or customer: those of its key. Users
    belong to their key, because keys may be allowed to name any user."""
    if narrow or scope == "user":
        return f"user:{caller.owner}"
    if scope == "shared":
        return "shared:"
    if scope == "customer" and caller.customer:
        return f"customer:{caller.customer}"
    if scope in (None, "team") and caller.team:
        return f"team:{caller.team}"
    return f"key:{caller.account}"


def fingerprint(tenant: str, *parts: bytes | str) -> str:
    """64 hexadecimal digits."""
    digest = hashlib.sha256(_VERSION)
    for part in (tenant, *parts):
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def canonical(value: Any, without: Iterable[str] = ()) -> bytes:
    """JSON that is the same for equal values, whatever the order of their keys. `without`: keys at the top that are
    left out. Numbers stay as they are: 1 is not 1.0. Raises ValueError, also for numbers that are too large to be told
    apart, and RecursionError."""
    if isinstance(value, dict):
        left_out = frozenset(without)
        value = {name: part for name, part in value.items() if name not in left_out}
    return _ENCODER.encode(value).encode()

"""HTTP headers of governance: who is asking, in; what it cost and what is left, out. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mcpgate.config.governance import LONGEST_METADATA_VALUE, METADATA_NAME, printable
from mcpgate.errors import BudgetExceeded, InvalidKey, InvalidRequest
from mcpgate.governance.context import Admitted, Trail
from mcpgate.governance.records import usd_text

_MOST_NAMES = 32
_ONE = "x-mcpgate-meta-"


_ONCE = frozenset(
    "host authorization origin x-api-key x-goog-api-key content-type content-length content-encoding".split()
)
_ONCE_PREFIXES = ("x-mcpgate-", "mcp-")


def read_headers(pairs: Sequence[tuple[bytes, bytes]]) -> tuple[dict[str, str], str | None]:
    """Headers by name, several of one name joined as HTTP wants; and the name of one that occurs twice and must not:
    nobody knows which of the two a proxy has looked at."""
    headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in pairs}
    if len(headers) == len(pairs):
        return headers, None
    headers, doubled = {}, None
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name not in headers:
            headers[name] = value
            continue
        headers[name] += ", " + value
        if name in _ONCE or name.startswith(_ONCE_PREFIXES):
            doubled = doubled or name
    return headers, doubled


MOST_ABOUT = 100
"""Characters of what the request log says of a client, or of a session."""


def secret_of(headers: Mapping[str, str]) -> str | None:
    """`Authorization: Bearer …`, `x-api-key: …` or `x-goog-api-key: …`. Raises InvalidKey for another kind of
    authorization."""
    authorization = headers.get("authorization", "").strip()
    if authorization:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise InvalidKey("authorization must be `Bearer mg-…`")
        return secret.strip()
    return headers.get("x-api-key", "").strip() or headers.get("x-goog-api-key", "").strip() or None


def metadata_of(headers: Mapping[str, str]) -> dict[str, str]:
    """`x-mcpgate-metadata`, a JSON object, and one `x-mcpgate-meta-NAME` each (NAME in small letters, `-` for `_`).
    Raises InvalidRequest."""
    found: dict[str, str] = {}
    if text := headers.get("x-mcpgate-metadata"):
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise InvalidRequest('x-mcpgate-metadata must be a JSON object, e.g. {"project_id": "p7"}')
        for name, value in given.items():
            if isinstance(value, (dict, list)) or value is None:
                raise InvalidRequest(f"x-mcpgate-metadata: {name!r} must be text, a number or a boolean")
            found[name] = value if isinstance(value, str) else json.dumps(value)
    for header, value in headers.items():
        if header.startswith(_ONE):
            found.setdefault(header.removeprefix(_ONE).replace("-", "_"), value)
    for name, value in found.items():
        if not METADATA_NAME.fullmatch(name):
            raise InvalidRequest(f"metadata name {name[:80]!r} must be 1–64 letters, digits, `_`, `-` or `.`")
        if len(value) > LONGEST_METADATA_VALUE:
            raise InvalidRequest(f"metadata {name!r} is longer than {LONGEST_METADATA_VALUE} characters")
        try:
            printable(value)
        except ValueError as error:
            raise InvalidRequest(f"metadata {name!r} {error}") from None
    if len(found) > _MOST_NAMES:
        raise InvalidRequest(f"metadata holds {len(found)} names; at most {_MOST_NAMES} are taken")
    return found


def user_of(headers: Mapping[str, str]) -> str | None:
    """`x-mcpgate-user`: on whose behalf a key that is nobody's own is used. Raises InvalidRequest."""
    user = headers.get("x-mcpgate-user", "").strip()
    if len(user) > 128 or not user.isprintable():
        raise InvalidRequest("x-mcpgate-user must be at most 128 printable characters")
    return user or None


def about_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What the request log says of where a request came from; anybody can claim it."""
    about = {}
    if client := headers.get("user-agent"):
        about["client"] = client[:MOST_ABOUT]
    if session := headers.get("mcp-session-id"):
        about["session"] = session[:MOST_ABOUT]
    return about


def refusal_headers(status: int, data: Mapping[str, Any]) -> dict[str, str]:
    """What a refusal carries besides its body. Clients' SDKs try a 429 again by themselves, so an empty budget, which
    no trying again fills, is told as 402 and says so. So does an unknown key: Claude Code would try it eleven times."""
    found: dict[str, str] = {}
    if status == 401:
        found["www-authenticate"] = 'Bearer realm="mcpgate"'
    if status in (401, 402):
        found["x-should-retry"] = "false"
    if isinstance(data.get("allow"), str):
        found["allow"] = data["allow"]
    wait = data.get("retry_after_s")
    if isinstance(wait, (int, float)):
        found |= {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
    return found


def governance_headers(trail: Trail) -> dict[str, str]:
    """What is left of the tightest limits, what the request cost, and when to retry if it was refused. Made of what the
    gateway itself knows, never of what an upstream answered."""
    found: dict[str, str] = {}
    for admitted in trail.admitted:
        found |= _limit_headers(admitted)
    if trail.admitted:
        found["x-mcpgate-cost-usd"] = usd_text(sum([admitted.total for admitted in trail.admitted]))
    if trail.refusal is not None:
        # A refused tool call is answered with 200: see api/mcp/face.py.
        status = 402 if isinstance(trail.refusal, BudgetExceeded) else 200
        found |= refusal_headers(status, trail.refusal.data)
    return found


def _limit_headers(admission: Admitted) -> dict[str, str]:
    """`x-ratelimit-*` of the tightest limit of each measure."""
    found: dict[str, str] = {}
    tightest: dict[str, int] = {}
    for share, balance in zip(admission.shares, admission.balances, strict=False):
        measure, limit = share.claim.measure, share.claim.limit
        if measure in ("cost", "execution_seconds") or limit is None:
            continue
        remaining = max(0, limit - balance.spent - balance.held)
        if remaining >= tightest.get(measure, 1 << 62):
            continue
        tightest[measure] = remaining
        name = measure.replace("_", "-")
        found[f"x-ratelimit-limit-{name}"] = str(limit)
        found[f"x-ratelimit-remaining-{name}"] = str(remaining)
        if measure != "concurrency":
            first = share.claim.cell if balance.first is None else balance.first
            wait = share.match.rule.window.frees_at(first) - admission.request.at
            found[f"x-ratelimit-reset-{name}"] = f"{max(0.0, wait):.3f}s"
    return found

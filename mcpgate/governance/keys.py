"""Virtual keys: generates, digests and checks secrets; turns records into keys.

A secret has 256 random bits, so storing a plain SHA-256 is enough (slow hashes protect what people make up), and
the time of a look-up by digest reveals nothing about any secret.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mcpgate.config.governance import GrantsConfig, KeySpec
from mcpgate.governance.callers import Grants, Realm, VirtualKey

PREFIX = "mg-"


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_good(key: VirtualKey, digest: str, now: float) -> bool:
    """Whether a digest is one of a key's unexpired ones."""
    good = False
    for known, until in key.digests:
        # Every digest is compared in full, found or not.
        good |= hmac.compare_digest(known, digest) and (until is None or now < until)
    return good


def make_grants(config: GrantsConfig) -> Grants:
    return Grants(
        tools=config.tools,
        servers=config.servers,
        models=config.models,
        providers=config.providers,
        meta_tools=config.meta_tools,
        admin=config.admin,
    )


def make_key(
    id: str,
    spec: KeySpec,
    digests: Sequence[tuple[str, float | None]],
    hint: str = "",
    created_at: float = 0.0,
    revoked_at: float | None = None,
    declared: bool = False,
) -> VirtualKey:
    return VirtualKey(
        id=id,
        name=spec.name or (id if declared else ""),
        digests=tuple(digests),
        hint=hint,
        user=spec.user,
        team=spec.team,
        customer=spec.customer,
        grants=make_grants(spec.grants),
        bundle=spec.bundle,
        limits=MappingProxyType(dict(spec.limits)),
        expires_at=None if spec.expires_at is None else spec.expires_at.timestamp(),
        enabled=spec.enabled,
        revoked_at=revoked_at,
        allowed_ips=spec.allowed_ips,
        users=spec.users,
        metadata=MappingProxyType(dict(spec.metadata)),
        created_at=created_at,
        realm=_realm_of(spec),
        declared=declared,
    )


def _realm_of(spec: KeySpec) -> Realm | None:
    """By what the key says itself: one whose user is in a team may still see everything."""
    if spec.team is not None:
        return "team", spec.team
    return None if spec.customer is None else ("customer", spec.customer)


def to_record(
    spec: KeySpec,
    digests: Sequence[tuple[str, float | None]],
    hint: str,
    created_at: float,
    revoked_at: float | None = None,
) -> dict[str, Any]:
    """A key as it is stored: everything but its secret."""
    return {
        "spec": spec.model_dump(mode="json", exclude_defaults=True),
        "digests": [list(pair) for pair in digests],
        "hint": hint,
        "created_at": created_at,
        "revoked_at": revoked_at,
    }


def from_record(id: str, value: Mapping[str, Any]) -> tuple[VirtualKey, KeySpec]:
    spec = KeySpec.model_validate(value["spec"])
    digests = [(digest, until) for digest, until in value["digests"]]
    key = make_key(id, spec, digests, value["hint"], value["created_at"], value["revoked_at"])
    return key, spec

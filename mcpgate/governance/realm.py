"""What an administrator sees whose key belongs to a team or a customer: what is that team's or customer's own. Pure."""

from collections.abc import Mapping
from typing import Any

from mcpgate.config.governance import KeySpec
from mcpgate.errors import NotAllowed
from mcpgate.governance.callers import Realm, VirtualKey
from mcpgate.governance.policy import Policy


def covers(realm: Realm | None, kind: str, id: str, declared: Any, policy: Policy) -> bool:
    """Whether a customer, team, user, budget or rate limit belongs to a realm. Rules do that speak of it alone."""
    if realm is None or realm == (kind, id):
        return True
    match kind:
        case "team":
            return realm == ("customer", declared.customer)
        case "user":
            team = policy.teams.get(declared.team) if declared.team else None
            return realm in (("team", declared.team), ("customer", team.customer if team else None))
        case "budget" | "rate_limit":
            return bool(declared.when.get(realm[0]) == (realm[1],))
    return False


def covers_key(realm: Realm | None, key: VirtualKey, spec: KeySpec, policy: Policy) -> bool:
    """Whether a key belongs to a realm, itself or by its user."""
    return realm is None or getattr(policy.caller_of(key, spec), realm[0]) == realm[1]


def within(realm: Realm | None, where: Mapping[str, str]) -> dict[str, str]:
    """The conditions of a report, with the realm's. Raises NotAllowed for another's."""
    if realm is None:
        return dict(where)
    kind, id = realm
    if where.get(kind, id) != id:
        raise NotAllowed(f"this key sees only the {kind} {id!r}")
    return {**where, kind: id}

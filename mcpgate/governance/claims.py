"""Checks what requests claim about themselves against their key: on whose behalf, for which project.

A key's `users` and `metadata` decide. If they do not, a user must be declared, and for a name that budgets or
rate limits look at, a key may use only so many different values per day, so that no one gets a new budget for each
invented name.
"""

import asyncio
import time
from collections.abc import Callable, Container, Mapping, Sequence
from types import MappingProxyType

from mcpgate.errors import NotAllowed, Unavailable
from mcpgate.governance.callers import Said, VirtualKey, matches_any
from mcpgate.governance.declared import Declared
from mcpgate.governance.records import EMPTY, Claim
from mcpgate.governance.store import Counters, Store, StoreUnavailable

_DAY_S = 86_400.0
_MOST_REMEMBERED = 20_000


def claimed_user(key: VirtualKey, said: Said, declared: Container[str]) -> str | None:
    """The user on whose behalf a key's request is made. Raises NotAllowed."""
    user = said.user
    if user is None or user == key.user:
        return key.user
    if key.users is None:
        if key.user is None and user in declared:
            return user
        why = (
            f"it belongs to another user, {key.user!r}"
            if key.user is not None
            else "this user is not declared, and the key has no `users` list"
        )
    elif matches_any(user, key.users):
        return user
    else:
        why = f"its `users` allow {_shown(key.users)}"
    raise NotAllowed(f"key {key.id!r} may not act for user {user!r}: {why}", key=key.id, name="user", value=user)


def claimed_metadata(key: VirtualKey, said: Said) -> Mapping[str, str]:
    """The metadata of a key's request: what it claims, and what its key sets. Raises NotAllowed."""
    if not key.metadata:
        return MappingProxyType(dict(said.metadata)) if said.metadata else EMPTY
    found = dict(said.metadata)
    for name, allowed in key.metadata.items():
        value = found.get(name)
        if isinstance(allowed, str):
            if value not in (None, allowed):
                raise _not_allowed(key, name, value, f"it is always {allowed!r}")
            found[name] = allowed
        elif value is not None and not matches_any(value, allowed):
            raise _not_allowed(key, name, value, f"its `metadata` allow {_shown(allowed)}")
    return MappingProxyType(found)


def _not_allowed(key: VirtualKey, name: str, value: str | None, why: str) -> NotAllowed:
    text = f"key {key.id!r} may not set metadata {name!r} to {value!r}: {why}"
    return NotAllowed(text, key=key.id, name=name, value=value)


def _shown(globs: Sequence[str]) -> str:
    return ", ".join(map(repr, globs)) or "none"


class NewValues:
    """Counts each account's values for names that rules look at and its key does not restrict: in the store, so that a
    restart forgets none. Several processes that get new values of one account at the same instant may admit one
    more each. One per process."""

    def __init__(
        self, declared: Declared, counters: Counters, store: Store, clock: Callable[[], float] = time.time
    ) -> None:
        self._declared, self._counters, self._store, self._clock = declared, counters, store, clock
        self._known: dict[tuple[str, str], dict[str, float]] = {}
        """(Account, name) → value → when it expires."""
        self._one_at_a_time = asyncio.Lock()

    async def admit(self, key: VirtualKey, said: Said, account: str) -> None:
        """`account`: see `Caller.account`. Raises NotAllowed beyond `max_claimed_values`, Unavailable."""
        looked_at = self._declared.policy.metadata_names
        for name, value in said.metadata:
            if name not in looked_at or name in key.metadata:
                continue
            if self._known.get((account, name), {}).get(value, 0.0) > self._clock():
                continue
            try:
                async with self._one_at_a_time:
                    await self._admit(account, name, value)
            except StoreUnavailable as error:
                self._declared.lost(error)
                if self._declared.config.when_store_is_away == "refuse":
                    raise Unavailable("the store of budgets and limits is unavailable; try again shortly") from error

    async def _admit(self, account: str, name: str, value: str) -> None:
        now, most = self._clock(), self._declared.config.max_claimed_values
        prefix = f"claimed|values|{account}|{name}|"
        if self._counters is not self._store:
            await self._store.expire(now)  # otherwise the gate does so every second
        (seen,) = await self._store.read([(prefix + value, 0)])
        if not seen.spent:
            if len(await self._store.names(prefix, most)) >= most:
                raise NotAllowed(
                    f"{account!r} has used {most} values of metadata {name!r} within a day, and a limit counts "
                    f"by it: list the allowed values in the key's `metadata`, e.g. metadata: {{{name}: ['p-*']}}",
                    key=account,
                    name=name,
                    value=value,
                )
            await self._store.adjust(Claim(prefix + value, "values", 1, None, 0, 0, now + _DAY_S))
        if len(self._known) > _MOST_REMEMBERED:
            self._known.clear()
        known = {one: until for one, until in self._known.get((account, name), {}).items() if until > now}
        # Known for less than a day; checked now and then whether the store still knows it.
        self._known[account, name] = known | {value: now + _DAY_S / 24}

"""Identity: from a secret or an access token to a caller, and from a caller to its current state."""

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcpgate.config.governance import KeySpec
from mcpgate.errors import InvalidKey, InvalidRequest, McpgateError, MissingKey, NotAllowed, Unavailable
from mcpgate.governance.callers import LOCAL, Caller, Said, Token, VirtualKey
from mcpgate.governance.claims import NewValues, claimed_metadata, claimed_user
from mcpgate.governance.declared import Declared
from mcpgate.governance.keys import PREFIX, digest_of, from_record, is_good
from mcpgate.governance.policy import Policy
from mcpgate.governance.store import Counters, Store, StoreUnavailable
from mcpgate.governance.tokens import Tokens, held, holder_of, looks_like_token

_MAX_REMEMBERED = 20_000
_MAX_HELD = 4096
_CURRENT_S = 1.0
"""How long a caller's state is cached: running code loses a revoked right after at most this time."""


class Identity:
    """Identifies callers. One per process."""

    def __init__(
        self,
        declared: Declared,
        counters: Counters,
        store: Store,
        clock: Callable[[], float] = time.time,
        tokens: Tokens | None = None,
    ) -> None:
        """`tokens`: verifies access tokens, which are accepted while the configuration names issuers."""
        self._declared, self._store, self._clock, self._tokens = declared, store, clock, tokens
        self._new_values = NewValues(declared, counters, store, clock)
        self._known: dict[str, tuple[Policy, Mapping[str, Any], VirtualKey, Caller]] = {}
        self._callers: dict[str, tuple[Caller, Caller]] = {}
        """Digest of a secret → its caller, and the same from the address that it last came from."""
        self._held: dict[tuple[str, Sequence[str]], tuple[Policy, Mapping[str, Any], VirtualKey, Caller]] = {}
        """Digest of a token and where it was sent → how it was last identified."""
        self._current: dict[tuple[object, ...], tuple[float, Policy, Caller | McpgateError]] = {}

    async def identify(
        self,
        secret: str | None,
        *,
        key_required: bool,
        address: str | None = None,
        metadata: Mapping[str, str] | None = None,
        user: str | None = None,
        sent_to: Sequence[str] = (),
        complete: bool = True,
    ) -> Caller:
        """The caller behind a secret or an access token. `sent_to`: the addresses that a token may be meant for; see
        `Token`. `complete`: whether it must bring the metadata that all requests must. Raises MissingKey, InvalidKey,
        NotAllowed, InvalidRequest, Unavailable."""
        if not key_required and secret is not None and not self._is_ours(secret):
            secret = None  # a placeholder that clients send because they must send something
        if secret is None:
            if key_required:
                tokens = " Access tokens are accepted too" if self._declared.oauth is not None else ""
                raise MissingKey(
                    f"a virtual key is needed: send Authorization: Bearer mg-… or x-api-key: mg-….{tokens}"
                )
            return self._local(user, metadata)
        if self._is_token(secret):
            key, caller = await self._signed_in(secret, address, tuple(sent_to))
        else:
            key, caller = await self._admitted(digest_of(secret), address)
        if user or metadata or key.metadata:
            said = Said(user or None, tuple((metadata or {}).items()))
            caller = self._on_behalf(key, caller, said)
            await self._new_values.admit(key, said, caller.account)
        if complete:
            self.check_complete(caller)
        return caller

    def check_complete(self, caller: Caller) -> None:
        """That a request brings the metadata that all requests with a key must. Raises InvalidRequest."""
        missing = [name for name in self._declared.config.required_metadata if not caller.metadata.get(name)]
        if missing:
            raise InvalidRequest(
                f"metadata {missing[0]!r} is required: send "
                f"x-mcpgate-metadata: {json.dumps({missing[0]: '…'}, ensure_ascii=False)}"
            )

    async def current(self, caller: Caller) -> Caller:
        """The current state of a caller that was identified earlier: with today's grants, limits and rules (at most a
        second old). Raises NotAllowed if its key is no longer valid, or no longer allows what its request claimed."""
        if caller.is_local:
            return caller
        now, policy = self._clock(), self._declared.policy
        place = (caller.id, caller.digest, caller.address, caller.said, caller.bundle)
        until, seen, found = self._current.get(place, (0.0, policy, caller))
        if now >= until or seen is not policy:
            try:
                found = await self._look_again(caller)
            except StoreUnavailable as error:
                self._declared.lost(error)
                return caller  # later steps use the store too, and decide
            if len(self._current) > _MAX_REMEMBERED:
                self._current.clear()
            self._current[place] = (now + _CURRENT_S, self._declared.policy, found)
        if isinstance(found, McpgateError):
            raise found
        return found

    async def caller_by_id(self, id: str) -> Caller:
        """The caller of a key in any state; for an unknown key, a caller without scopes. Raises
        StoreUnavailable."""
        found = await self._key_by_id(id)
        return Caller(id) if found is None else self._declared.policy.caller_of(*found)

    async def _look_again(self, caller: Caller) -> Caller | McpgateError:
        if caller.token is not None:
            return await self._look_again_at_token(caller, caller.token)
        found = await self._key_by_id(caller.id)
        now = self._clock()
        if found is None or found[0].state(now) != "active":
            return NotAllowed("this key has been revoked, disabled or has expired", key=caller.id)
        key, spec = found
        if caller.digest is not None and not is_good(key, caller.digest, now):
            return NotAllowed("this key has been rotated; its old secret is no longer valid", key=caller.id)
        if caller.digest is not None and not key.admits_address(caller.address):
            return NotAllowed(f"this key may no longer be used from {caller.address}", key=caller.id)
        fresh = self._declared.policy.caller_of(key, spec)
        try:
            fresh = self._on_behalf(key, fresh, caller.said)
        except NotAllowed as error:
            return error
        if fresh.bundle not in (None, caller.bundle):
            return NotAllowed(f"this key now reaches only the bundle {fresh.bundle!r}", key=caller.id)
        return replace(fresh, digest=caller.digest, address=caller.address, bundle=caller.bundle)

    async def _look_again_at_token(self, caller: Caller, token: Token) -> Caller | McpgateError:
        if self._clock() >= token.ends_at:
            return NotAllowed("this token has expired", key=caller.id)
        try:
            key, fresh = await self._holder(token)
            self._check(key, caller.address)
            fresh = self._on_behalf(key, fresh, caller.said)
        except (InvalidKey, NotAllowed) as error:
            return NotAllowed(error.message, **{"key": caller.id, **error.data})
        if fresh.owner != caller.owner:
            return NotAllowed("by the edited configuration, this token is another user's", key=caller.id)
        if fresh.bundle not in (None, caller.bundle):
            return NotAllowed(f"this token now reaches only the bundle {fresh.bundle!r}", key=caller.id)
        return replace(fresh, address=caller.address, bundle=caller.bundle)

    async def _signed_in(self, text: str, address: str | None, sent_to: tuple[str, ...]) -> tuple[VirtualKey, Caller]:
        """The key that an access token acts with, as its holder has it, and the caller."""
        assert self._tokens is not None
        token = replace(await self._tokens.verify(text), sent_to=sent_to)
        try:
            key, caller = await self._holder(token)
        except StoreUnavailable as error:
            self._declared.lost(error)
            known = self._held.get((token.digest, sent_to))
            if known is None or self._declared.config.when_store_is_away != "allow":
                raise Unavailable("the key store is unavailable; try again shortly") from error
            key, caller = known[2:]
        try:
            self._check(key, address)
        except InvalidKey as error:  # signing in again would not help
            raise NotAllowed(f"{error.message}; this token acts with key {key.id!r}", key=key.id) from None
        return key, replace(caller, address=address)

    async def _holder(self, token: Token) -> tuple[VirtualKey, Caller]:
        """Raises InvalidKey, NotAllowed, StoreUnavailable."""
        if self._declared.oauth is None:
            raise InvalidKey("access tokens are no longer accepted")
        policy, place = self._declared.policy, (token.digest, token.sent_to)
        known = self._held.get(place)
        if known is not None and known[0] is not policy:
            known = None
        if known is not None and known[2].id in policy.keys:
            return known[2:]
        holder = holder_of(token, self._declared.oauth)
        record = None if holder.key in policy.keys else await self._store.get_record("key", holder.key)
        if known is not None and record is not None and record.value == known[1]:
            return known[2:]
        if record is None and holder.key not in policy.keys:
            raise NotAllowed(f"server.oauth.claims.keys names the key {holder.key!r}, which does not exist")
        key, spec = policy.keys[holder.key] if record is None else from_record(holder.key, record.value)
        key = held(key, holder, policy)
        caller = replace(policy.caller_of(key, spec), digest=token.digest, token=token)
        if record is not None:
            await self._declared.start_values(caller.rules)
        if len(self._held) > _MAX_HELD:
            self._held.clear()
        self._held[place] = (policy, {} if record is None else record.value, key, caller)
        return key, caller

    async def _admitted(self, digest: str, address: str | None) -> tuple[VirtualKey, Caller]:
        key, caller = await self._find(digest)
        self._check(key, address)
        before = self._callers.get(digest)
        if before is None or before[0] is not caller or before[1].address != address:
            if len(self._callers) > _MAX_REMEMBERED:
                self._callers.clear()
            before = self._callers[digest] = (caller, replace(caller, digest=digest, address=address))
        return key, before[1]

    def _check(self, key: VirtualKey, address: str | None) -> None:
        """That a key may be used now, from an address. Raises InvalidKey, NotAllowed."""
        match key.state(self._clock()):
            case "revoked":
                raise InvalidKey("this key was revoked")
            case "expired":
                when = datetime.datetime.fromtimestamp(key.expires_at or 0.0, datetime.UTC)
                raise InvalidKey(f"this key expired on {when:%Y-%m-%d %H:%M} UTC")
            case "disabled":
                raise NotAllowed("this key is disabled", key=key.id)
        if not key.admits_address(address):
            raise NotAllowed(f"this key may not be used from {address or 'an unknown address'}", key=key.id)

    def _on_behalf(self, key: VirtualKey, caller: Caller, said: Said) -> Caller:
        """A caller with what its request claims, if its key allows it. Raises NotAllowed."""
        policy = self._declared.policy
        user, metadata = claimed_user(key, said, policy.users), claimed_metadata(key, said)
        if user is not None and user != caller.user:
            caller = policy.with_user(caller, user)
        return replace(caller, metadata=metadata, said=said)

    def _local(self, user: str | None, metadata: Mapping[str, str] | None) -> Caller:
        """A caller without a key, where none is required: its claims are trusted."""
        caller = replace(LOCAL, metadata=metadata) if metadata else LOCAL
        return self._declared.policy.with_user(caller, user) if user else caller

    def _is_ours(self, secret: str) -> bool:
        return (
            secret.startswith(PREFIX)
            or self._declared.policy.find_declared(digest_of(secret)) is not None
            or self._is_token(secret)
        )

    def _is_token(self, secret: str) -> bool:
        return (
            self._declared.oauth is not None
            and self._tokens is not None
            and not secret.startswith(PREFIX)
            and looks_like_token(secret)
            and self._declared.policy.find_declared(digest_of(secret)) is None
        )

    async def _find(self, digest: str) -> tuple[VirtualKey, Caller]:
        declared = self._declared.policy.find_declared(digest)
        known = self._known.get(digest)
        value: Mapping[str, Any] = {}
        if declared is None:
            try:
                record, version = await self._store.find_key(digest)
                if version != self._declared.policy.version:
                    await self._declared.reload(version)
            except StoreUnavailable as error:
                self._declared.lost(error)
                good = known is not None and is_good(known[2], digest, self._clock())
                if known is not None and good and self._declared.config.when_store_is_away == "allow":
                    return known[2], known[3]
                raise Unavailable("the key store is unavailable; try again shortly") from error
            if record is None:
                raise InvalidKey("unknown API key")
            value = record.value
        if known is not None and known[0] is self._declared.policy and (declared or known[1] == value):
            key, caller = known[2], known[3]
        else:
            key, spec = declared or from_record(record.id if record else "", value)
            caller = self._declared.policy.caller_of(key, spec)
            if declared is None:
                try:
                    await self._declared.start_values(caller.rules)
                except StoreUnavailable as error:
                    self._declared.lost(error)
            if len(self._known) > _MAX_REMEMBERED:
                self._known.clear()
            self._known[digest] = (self._declared.policy, value, key, caller)
        if not is_good(key, digest, self._clock()):
            raise InvalidKey("this secret has been rotated out")
        return key, caller

    async def _key_by_id(self, id: str) -> tuple[VirtualKey, KeySpec] | None:
        if (declared := self._declared.policy.keys.get(id)) is not None:
            return declared
        record = await self._store.get_record("key", id)
        return None if record is None else from_record(id, record.value)

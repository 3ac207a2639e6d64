"""What providers keep for accounts of the gateway, such as responses and files: who made each one, and where it is. The
contract of the table; implementations: stores/. What is kept itself stays with the provider."""

import re
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeGuard

from mcpgate.errors import Unavailable

Kind = Literal["response", "file"]
KEPT_S = 30 * 86_400.0
"""How long an object can be asked for. OpenAI keeps responses as long."""
MOST: Mapping[Kind, int] = MappingProxyType({"response": 100_000, "file": 10_000})
"""Objects of each account; beyond that the oldest are forgotten."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")


class ObjectsUnavailable(Unavailable):
    """The table cannot be read or written."""


class Kept(NamedTuple):
    """One object at a provider."""

    kind: Kind
    id: str
    """The provider's."""
    account: str
    """Whose request made it: see Caller.account."""
    provider: str
    model: str = ""
    """The provider's own name of the model that wrote it; empty for files."""
    alias: str = ""
    """What its client called the model, where that is not `provider/model`."""
    key: str = ""
    """The mark of the provider's key that it was made with: see providers/keys.py."""
    at: float = 0.0
    """When it was made, epoch seconds."""
    about: bytes = b""
    """What the provider says of it, as JSON; empty for responses."""


class Objects(Protocol):
    """The table, for all processes that share it. Every method raises ObjectsUnavailable, and none blocks the event
    loop."""

    async def put(self, kept: Kept) -> None:
        """Record an object. It belongs to the account that recorded it first: some providers let clients choose ids,
        and nobody gets at another's object by naming one of his own like it."""
        ...

    async def find(self, account: str, kind: Kind, ids: Sequence[str]) -> list[Kept]:
        """Those of an account's objects that have one of the ids, the latest first."""
        ...

    async def page(self, account: str, kind: Kind, after: str, most: int, oldest_first: bool = False) -> list[Kept]:
        """Objects of an account in order. `after`: the id of the one before them; empty at the beginning."""
        ...

    async def forget(self, kept: Kept) -> None: ...

    async def tidy(self) -> None:
        """Forget what is older than KEPT_S, and what is beyond MOST."""
        ...


def is_id(text: object) -> TypeGuard[str]:
    """Whether a provider's id can be an object's: it stands in paths, and must not lead to another one."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def oldest_kept() -> float:
    return time.time() - KEPT_S

"""Who is asking. Frozen values that every face makes and every flow passes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Caller:
    """An identified caller. Handles and sessions belong to it, and nobody else can reach them."""

    id: str = "local"
    limits: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """What its executions may use, where that differs from the settings: names as in `config.LIMITS`."""


LOCAL = Caller()
"""The one caller of a gateway that asks for no keys (stdio, loopback): all rights."""

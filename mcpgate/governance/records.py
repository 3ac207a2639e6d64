"""Who is asking. Frozen values that every face makes and every flow passes on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """An identified caller. Handles and sessions belong to it, and nobody else can reach them."""

    id: str = "local"


LOCAL = Caller()
"""The one caller of a gateway that asks for no keys (stdio, loopback): all rights."""

"""IP addresses and networks. An IPv4 address in IPv6 form counts as the IPv4 address. Pure."""

import functools
import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_address(text: str | None) -> Address | None:
    """None for what is not an address. The zone of an IPv6 address is left out."""
    try:
        seen = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    if isinstance(seen, ipaddress.IPv6Address):
        return seen.ipv4_mapped or ipaddress.IPv6Address(int(seen))
    return seen


@functools.lru_cache(maxsize=1024)
def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks. Raises ValueError."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def is_in(address: str | None, networks: Sequence[Network]) -> bool:
    """Whether an address belongs to one of the networks."""
    seen = parse_address(address) if networks else None
    return seen is not None and any(seen.version == network.version and seen in network for network in networks)

"""The network of a client's address, which limits for each address count."""

from __future__ import annotations

import ipaddress


def find_network(address: str | None) -> str | None:
    """Return the IPv4 address of a client, or its IPv6 /64 network, which one host usually owns. None if unknown."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

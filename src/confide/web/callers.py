"""Find out whether the address of a request is the caller's, or that of a proxy that is not trusted."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from functools import lru_cache

from confide.clock import read_boot_clock
from confide.web.asgi import AsgiScope

# The address of the connection, before a trusted proxy's header replaces the client's.
PEER = "confide.peer"
# For so long after a request through an untrusted proxy, health reports it.
REPORTED_SECONDS = 3_600.0
# More proxies than a site has. Clients that pretend to be proxies must not fill the memory or the log.
MAX_PROXIES = 100
_HEADERS = frozenset({b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip"})
_PREFIXES = (b"x-forwarded-", b"cf-")

_log = logging.getLogger("confide")


def is_loopback_address(address: str) -> bool:
    parsed = _parse_address(address)
    return parsed is not None and parsed.is_loopback


def has_proxy_header(scope: AsgiScope) -> bool:
    """Return whether a proxy has added a header, so that the address of the connection is not the client's."""
    return any(name in _HEADERS or name.startswith(_PREFIXES) for name, _ in scope["headers"])


class CallerAddresses:
    """Recognizes proxies, so that limits for each address do not count all callers of a proxy as one.

    A client can send the header of a proxy itself, to escape these limits. So only a peer with a private address counts
    as a proxy that the settings do not name.
    """

    def __init__(self, *, trusted: Iterable[str], is_behind_proxy: bool) -> None:
        self._trusted = tuple(ipaddress.ip_network(network) for network in trusted)
        # All peers are proxies that are not named.
        self._is_behind_unnamed_proxy = is_behind_proxy and not self._trusted
        # When each proxy that is not trusted last forwarded a request, in seconds of the boot-time clock.
        self._proxies: dict[str, float] = {}
        self._is_trusted = lru_cache(maxsize=4_096)(self._compute_trust)

    def is_proxy_address(self, scope: AsgiScope) -> bool:
        """Return whether the client of a request is only known as a proxy."""
        client = scope.get("client")
        address = client[0] if client else None
        peer = scope.get(PEER, address)
        if peer is None:
            return True
        if self._is_trusted(peer):
            return bool(peer == address)
        if has_proxy_header(scope):
            self._note_proxy(peer)
        return self.is_proxy(peer)

    def is_proxy(self, peer: str) -> bool:
        """Return whether the connections of a peer come from several callers."""
        return self._is_behind_unnamed_proxy or peer in self._proxies or self._is_trusted(peer)

    def has_untrusted_proxy(self) -> bool:
        """Return whether requests come through a proxy that is not trusted."""
        oldest = read_boot_clock() - REPORTED_SECONDS
        return self._is_behind_unnamed_proxy or any(at >= oldest for at in self._proxies.values())

    def _note_proxy(self, peer: str) -> None:
        if peer not in self._proxies:
            if len(self._proxies) >= MAX_PROXIES or not _is_private(peer):
                return
            _log.warning("proxy_untrusted address=%s", peer)
        self._proxies[peer] = read_boot_clock()

    def _compute_trust(self, peer: str) -> bool:
        address = _parse_address(peer)
        return address is not None and any(address in network for network in self._trusted)


def _is_private(peer: str) -> bool:
    address = _parse_address(peer)
    return address is not None and not address.is_global


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

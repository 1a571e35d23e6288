"""Explain why a request got no response."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

E = TypeVar("E", bound=BaseException)

PROBE_SECONDS = 2.0
USE_HTTPS = "{url} uses TLS. Write https:// instead of http://."


def explain_failure(error: Exception, url: str) -> str:
    """Return one sentence with the reason of a failed request and its remedy. `url` is the URL of the service."""
    url = hide_account(url)
    causes = list(_list_causes(error))
    if (tls_error := _find(causes, ssl.SSLError)) is not None:
        return _explain_tls_error(tls_error, url)
    if _find(causes, socket.gaierror):
        return f"The host name of {url} is unknown. Check the URL."
    if has_proxy(url):
        return f"No service answers at {url} through the proxy of the environment. Check HTTP_PROXY and NO_PROXY."
    return _explain_http_error(error, url)


def _explain_http_error(error: Exception, url: str) -> str:
    if isinstance(error, httpx2.ReadTimeout):
        return f"{url} did not respond in time. Try again."
    if not isinstance(error, httpx2.ProtocolError | httpx2.ReadError):
        return f"No service answers at {url}."
    if is_tls_missing(url):
        return USE_HTTPS.format(url=url)
    return f"{url} closed the connection without a valid HTTP response. Check the URL."


def _explain_tls_error(error: ssl.SSLError, url: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"The certificate of {url} is not trusted: {error.verify_message.rstrip('.')}. If it is the right service,"
            " name a file with the certificate of its issuer in SSL_CERT_FILE."
        )
    # A port without TLS responds with other bytes, or closes the connection during the handshake.
    reason = (error.reason or "no reason given").lower().replace("_", " ")
    return f"{url} does not respond with TLS ({reason}). If it serves plain HTTP, write http:// instead of https://."


def is_tls_missing(url: str) -> bool:
    """Return whether an `http` URL names a port that uses TLS."""
    parts = urlsplit(url)
    if parts.scheme != "http" or has_proxy(url):
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 80), timeout=PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):
        return False


def hide_account(url: str) -> str:
    """Return a URL without its user and password, for a message."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def has_proxy(url: str) -> bool:
    """Return whether the environment names a proxy for the URL."""
    parts, proxies = urlsplit(url), getproxies()
    return (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.hostname or "")


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _find(causes: list[BaseException], kind: type[E]) -> E | None:
    return next((cause for cause in causes if isinstance(cause, kind)), None)

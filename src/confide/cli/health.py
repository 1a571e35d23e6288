"""`confide health`, for the health checks of containers and service managers."""

from __future__ import annotations

import http.client
import json
import ssl

import rich_click as click

from confide.cli.input import add_address_options, add_certificate_option
from confide.cli.output import EXIT_ERROR, print_line

# A service that listens on all addresses also listens on loopback.
LOOPBACK_OF_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


@click.command()
@add_address_options(host_help="Address where the service listens.", port_help="Port where the service listens.")
@add_certificate_option
@click.option(
    "--timeout", "timeout_seconds", default=2.0, show_default=True, type=float, help="Seconds to wait for the answer."
)
def health(host: str, port: int, tls_cert: str | None, timeout_seconds: float) -> int:
    """Check that the service on this host can serve.

    It uses the address and the port of `confide serve`, and TLS if that has a certificate. The exit code is 0 if the
    service can serve, else 1.
    """
    address = LOOPBACK_OF_ALL.get(host, host)
    try:
        status, reasons = _read_health(address, port, has_tls=tls_cert is not None, timeout_seconds=timeout_seconds)
    except (OSError, http.client.HTTPException, ValueError) as error:
        has_closed = tls_cert is None and isinstance(error, http.client.RemoteDisconnected)
        hint = " If the service uses TLS, pass --tls-cert." if has_closed else ""
        reason = str(error) or type(error).__name__
        raise click.ClickException(f"No answer from {address}, port {port}: {reason}.{hint}") from None
    print_line(" ".join([status, *reasons]))
    return EXIT_ERROR if status == "unavailable" else 0


def _read_health(host: str, port: int, *, has_tls: bool, timeout_seconds: float) -> tuple[str, list[str]]:
    connection: http.client.HTTPConnection
    if has_tls:
        context = ssl.create_default_context()
        # The certificate is for the name that clients use, not for this address.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    try:
        connection.request("GET", "/health/ready")
        answer = json.loads(connection.getresponse().read())
        return str(answer["status"]), [str(reason) for reason in answer["reasons"]]
    except (KeyError, TypeError) as error:
        raise ValueError("the answer is not that of a Confide service") from error
    finally:
        connection.close()

"""`confide serve`."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import rich_click as click

from confide.cli.input import PemPath, add_address_options, add_certificate_option, add_database_options
from confide.cli.output import print_line
from confide.cli.settings import find_unknown_variables, load_settings

if TYPE_CHECKING:
    from confide.server.settings import Settings


@click.command()
@add_address_options(host_help="Address to listen on.", port_help="Port to listen on. 0 chooses a free port.")
@add_database_options
@click.option(
    "--workers",
    envvar="CONFIDE_WORKERS",
    default=1,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1, 64),
    help="Number of worker processes.",
)
@add_certificate_option
@click.option(
    "--tls-key",
    envvar="CONFIDE_TLS_KEY",
    show_envvar=True,
    type=PemPath(exists=True, dir_okay=False),
    help="PEM file of the private key.",
)
@click.option(
    "--behind-tls-proxy",
    is_flag=True,
    default=None,
    envvar="CONFIDE_BEHIND_TLS_PROXY",
    show_envvar=True,
    help="Declare that a proxy terminates TLS. Any address but loopback needs this or a certificate.",
)
@click.option(
    "--trusted-proxies",
    envvar="CONFIDE_TRUSTED_PROXIES",
    show_envvar=True,
    help="Trust X-Forwarded-For from these addresses, comma-separated.",
)
@click.option(
    "--unsafe-durability",
    is_flag=True,
    default=None,
    envvar="CONFIDE_UNSAFE_DURABILITY",
    show_envvar=True,
    help="Accept a database that can lose acknowledged saves.",
)
def serve(**options: Any) -> None:
    """Serve the API until SIGTERM.

    The database is SQLite in the data folder unless --database names another. Other settings are variables:
    CONFIDE_MASTER_KEYS, CONFIDE_SETUP_TOKEN (optional, required), CONFIDE_OLD_CONTRACT (on, off),
    CONFIDE_MIN_PASSWORD_CHARACTERS, CONFIDE_POOL_SIZE, CONFIDE_MAX_CONNECTIONS,
    CONFIDE_MAX_CONNECTIONS_PER_ADDRESS, CONFIDE_MAX_STREAMS_PER_TOKEN, CONFIDE_CACHE_BYTES, CONFIDE_CACHE_TTL_SECONDS,
    CONFIDE_STALE_READS_SECONDS, CONFIDE_LOG_DAYS, CONFIDE_AUDIT_DAYS, CONFIDE_CHECKPOINTS,
    CONFIDE_METRICS (closed, open), CONFIDE_IO_SINKS, CONFIDE_IO_SAMPLE, CONFIDE_IO_QUEUE, CONFIDE_IO_DAYS,
    CONFIDE_IO_MIB. See docs/reference/settings.md for each.
    """
    settings = load_settings(**options)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together. Pass both or neither.")
    if not (settings.is_loopback or settings.has_tls or settings.behind_tls_proxy):
        raise click.UsageError(
            f"{settings.host} is not loopback. Pass --tls-cert and --tls-key, or --behind-tls-proxy."
        )
    _require_valid_certificate(settings)
    for name in sorted(find_unknown_variables()):
        print_line(f"confide: {name} is not a setting. See docs/reference/settings.md.", err=True)
    from confide.server import supervisor  # noqa: PLC0415 - other commands must not load the server

    supervisor.serve(settings, say=print_line)


def _require_valid_certificate(settings: Settings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
    except (ssl.SSLError, OSError) as error:
        raise click.UsageError(f"The certificate and the key are not a matching pair of PEM files: {error}.") from None

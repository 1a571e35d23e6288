"""The life of one worker: its parts come alive, hear the news, do the chores, and end with the server."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from confide import __version__
from confide.errors import Busy, DatabaseUnavailable
from confide.server.application import Application
from confide.server.services import Services
from confide.server.settings import Settings
from confide.server.wiring import alongside, listening, noting_io, parts_of

CHORE_SECONDS = 600
# What is remembered lives long and holds no circles: the collector need not look at it thousands of times a second.
GARBAGE_THRESHOLDS = (20_000, 50, 100)

_log = logging.getLogger("confide")


def app_of(settings: Settings, setup_token: str) -> Application:
    """Make the application of one worker; its parts come alive and end with the server's lifespan."""
    alive: list[Services] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with noting_io(settings) as pump, parts_of(settings, setup_token=setup_token, pump=pump) as parts:
            services = parts.services
            alive[:] = [services]
            _say_when_draining(services)
            async with (
                listening(services),
                alongside(_chores(services)),
                alongside(services.metrics.run()),
                alongside(services.chain.run()),
                alongside(services.usage.run()),
            ):
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GARBAGE_THRESHOLDS)
                yield
            await _say_goodbye(services)

    return Application(lambda: alive[0], version=__version__, lifespan=lifespan)


def _say_when_draining(services: Services) -> None:
    """Chain to the server's own handler, so that health says it before the last answer is given."""
    previous = signal.getsignal(signal.SIGTERM)
    if not callable(previous):
        return
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(services.begin_draining)
        previous(number, frame)  # type: ignore[arg-type]

    signal.signal(signal.SIGTERM, drain)


async def _say_goodbye(services: Services) -> None:
    """Write down what waits to be: reads that were counted, and the audit's last checkpoint."""
    services.metrics.take_over()
    await services.usage.flush()
    try:
        await services.chain.link()
        await services.chain.sign()
    except (DatabaseUnavailable, Busy) as error:
        _log.warning("the audit's end is linked and signed by the next process: %s", error or "no answer in time")


async def _chores(services: Services) -> None:
    while True:
        try:
            await services.tokens.forget_expired()
            await services.configs.forget_old_replays()
            await services.retention.work()
        except (DatabaseUnavailable, Busy) as error:
            _log.warning("chores wait for the store: %s", error)
        except Exception:  # noqa: BLE001 - the chores must go on
            _log.exception("a bug, met by the chores")
        await asyncio.sleep(CHORE_SECONDS)

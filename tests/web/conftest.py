"""A served app with users and configs, one for each module and engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.populated_server import PopulatedServer, start_populated_server


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[PopulatedServer]:
    database = None
    if request.param == "postgresql":
        database = request.getfixturevalue("postgres").new_database(is_shared=True)
    async with start_populated_server(tmp_path_factory.mktemp("catalogue"), database) as built:
        yield built

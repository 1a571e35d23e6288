"""Writers that merge unique markers over HTTP and record the acknowledged saves."""

from __future__ import annotations

import asyncio
import time

import httpx2

from confide.names import ConfigKey
from support.histories import AcknowledgedSave


async def merge_marker(
    client: httpx2.AsyncClient, key: ConfigKey, writer: str, marker: str, *, tag: str | None = None
) -> httpx2.Response:
    """Merge `{writer: {marker: 1}}` into a config."""
    document = {
        "tenant": key.tenant,
        "integration_type": key.integration_type,
        "configuration": {writer: {marker: 1}},
    }
    return await client.post("/config", json=document, headers={} if tag is None else {"If-Match": tag})


async def merge_markers(
    client: httpx2.AsyncClient, key: ConfigKey, writer: str, *, times: int, pause_seconds: float = 0
) -> list[AcknowledgedSave]:
    """Merge markers one by one until all are saved or the service is unreachable."""
    saved = []
    for number in range(times):
        start = time.monotonic()
        try:
            reply = await merge_marker(client, key, writer, f"{number}")
        except httpx2.HTTPError:
            break
        if reply.status_code == 200:
            version = reply.json()["version"]
            saved.append(AcknowledgedSave(key, writer, f"{number}", version, start, time.monotonic()))
        await asyncio.sleep(pause_seconds)
    return saved

"""Measure failovers of a PostgreSQL cluster under a running service: `python tools/failover [FAULT ...]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tools" / "bench"))

from results import describe_machine  # noqa: E402 - after the path is set

from support.failover import FAULTS, create_probe_database, measure_fault, run_subject  # noqa: E402
from support.patroni import ADDRESSES, PatroniCluster, find_missing_packages, run_patroni_cluster  # noqa: E402


async def measure(cluster: PatroniCluster, folder: Path, *, addresses: list[str], faults: list[str]) -> list[Any]:
    """Measure each fault at each address, with one service for each address."""
    rows: list[Any] = []
    await create_probe_database(cluster)
    for address in addresses:
        for has_proxies in (False, True):
            names = [name for name in faults if FAULTS[name].needs_proxies == has_proxies]
            if not names:
                continue
            database = f"confide_{address.replace('-', '_')}{'_proxied' if has_proxies else ''}"
            place = folder / database
            async with run_subject(
                cluster, place, address=address, database=database, has_proxies=has_proxies
            ) as subject:
                for name in names:
                    print(f"{datetime.now(UTC):%H:%M:%S} {address}: {FAULTS[name].title}", file=sys.stderr, flush=True)
                    result = await measure_fault(subject, FAULTS[name])
                    rows.append({"address": address, "fault": name, **result.as_json()})
                    print(json.dumps(rows[-1], indent=1), file=sys.stderr, flush=True)
    return rows


def exit_on_signal(number: int, _frame: FrameType | None) -> None:
    """Leave through the `finally` clauses, which end the cluster."""
    sys.exit(128 + number)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/failover", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"any of {', '.join(FAULTS)}; default: all")
    parser.add_argument("--address", action="append", choices=ADDRESSES, help="default: all three")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--logs", type=Path, help="folder that receives the logs of the services")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, exit_on_signal)
    signal.signal(signal.SIGINT, exit_on_signal)
    if missing := find_missing_packages():
        sys.exit(f"Packages are missing: apt-get install --no-install-recommends {' '.join(missing)}")
    folder = Path(tempfile.mkdtemp(prefix="confide-failover-"))
    try:
        with run_patroni_cluster() as cluster:
            rows = asyncio.run(
                measure(
                    cluster,
                    folder,
                    addresses=chosen.address or list(ADDRESSES),
                    faults=chosen.faults or list(FAULTS),
                )
            )
    finally:
        for log in folder.glob("*/service.log") if chosen.logs else ():
            chosen.logs.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, chosen.logs / f"{log.parent.name}.log")
        shutil.rmtree(folder, ignore_errors=True)
    document = {"date": datetime.now(UTC).date().isoformat(), "machine": describe_machine(), "rows": rows}
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

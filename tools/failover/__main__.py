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

from support.failover import FAULTS, SystemUnderTest, create_probe_database, measure_fault, run_system  # noqa: E402
from support.patroni import ADDRESSES, PatroniCluster, find_missing_packages, read_patroni_version, run_patroni_cluster  # noqa: E402


class FailoverMatrix:
    """The results of each fault at each address. A file keeps them; a new result replaces the one of the same cell."""

    def __init__(self, folder: Path, file: Path | None) -> None:
        self._file = file
        earlier = json.loads(file.read_text())["rows"] if file is not None and file.exists() else []
        self._rows = {(row["address"], row["fault"]): row for row in earlier}
        self._folder = folder
        self._services = self._clusters = 0

    def measure(self, address: str, faults: list[str]) -> None:
        """Measure faults at an address. If Patroni does not repair the cluster after one, go on with a new cluster."""
        remaining = list(faults)
        while remaining:
            self._clusters += 1
            try:
                with run_patroni_cluster(self._folder / f"cluster_{self._clusters}") as cluster:
                    asyncio.run(self._measure_all(cluster, address, remaining))
            except AssertionError as error:
                print(f"{address}: {remaining[0]} ended the cluster: {error}", file=sys.stderr, flush=True)
                self._keep(address, remaining.pop(0), {"error": str(error).partition("\n")[0]})

    async def _measure_all(self, cluster: PatroniCluster, address: str, remaining: list[str]) -> None:
        await create_probe_database(cluster)
        while remaining:
            has_proxies = FAULTS[remaining[0]].needs_proxies
            self._services += 1
            database = f"confide_{self._services}"
            async with run_system(
                cluster, self._folder / database, address=address, database=database, has_proxies=has_proxies
            ) as system:
                while remaining and FAULTS[remaining[0]].needs_proxies == has_proxies:
                    await self._measure_one(system, address, remaining[0])
                    remaining.pop(0)
                    if system.is_cluster_broken:
                        return

    async def _measure_one(self, system: SystemUnderTest, address: str, name: str) -> None:
        print(f"{datetime.now(UTC):%H:%M:%S} {address}: {FAULTS[name].title}", file=sys.stderr, flush=True)
        result = await measure_fault(system, FAULTS[name])
        self._keep(address, name, result.as_json())

    def _keep(self, address: str, name: str, result: dict[str, Any]) -> None:
        fault = FAULTS[name]
        row = {
            "address": address,
            "fault": name,
            "title": fault.title,
            "may_lose": fault.may_lose,
            "has_two_leaders": fault.has_two_leaders,
            "patroni": read_patroni_version(),
            **result,
        }
        print(json.dumps(row, indent=1), file=sys.stderr, flush=True)
        self._rows[address, name] = row
        if self._file is None:
            return
        cells = [(one, fault_name) for one in ADDRESSES for fault_name in FAULTS]
        rows = [self._rows[cell] for cell in cells if cell in self._rows]
        document = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "rows": rows,
        }
        self._file.write_text(json.dumps(document, indent=1) + "\n")


def exit_on_signal(number: int, _frame: FrameType | None) -> None:
    """Leave through the `finally` clauses, which end the cluster."""
    sys.exit(128 + number)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/failover", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"any of {', '.join(FAULTS)}; default: all")
    parser.add_argument("--address", action="append", choices=ADDRESSES, help="default: all three")
    parser.add_argument("--json", type=Path, help="file for the results; other results in it stay")
    parser.add_argument("--logs", type=Path, help="folder that receives the logs of the services and of the clusters")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, exit_on_signal)
    signal.signal(signal.SIGINT, exit_on_signal)
    if missing := find_missing_packages():
        sys.exit(f"Packages are missing: apt-get install --no-install-recommends {' '.join(missing)}")
    folder = Path(tempfile.mkdtemp(prefix="confide-failover-"))
    matrix = FailoverMatrix(folder, chosen.json)
    try:
        for address in chosen.address or ADDRESSES:
            matrix.measure(address, chosen.faults or list(FAULTS))
    finally:
        for log in folder.rglob("*.log") if chosen.logs else ():
            chosen.logs.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, chosen.logs / f"{log.parent.name}-{log.name}")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

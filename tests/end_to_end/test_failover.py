"""A service on a real PostgreSQL cluster keeps its promises while the leader is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.bounds import assert_within
from support.failover import FAULTS, create_probe_database, measure_fault, run_system
from support.failover_checks import FailoverResult
from support.patroni import ADDRESSES, keeps_leader_lock, require_packages, run_patroni_cluster

# The service promises these times from the moment when its address leads to a leader that can commit.
UNSAVED_SECONDS, UNPROVEN_SECONDS = 1.0, 2.0
RESPONSE_SECONDS = 2.5


def check(result: FailoverResult) -> None:
    """Check everything that does not depend on the speed of the machine."""
    print(result)
    assert result.is_cluster_whole
    assert result.is_recovered
    assert not result.has_restarted
    assert result.saves > 50
    assert result.saves_lost == 0, result.details
    assert result.reads_refused == 0, result.details
    assert result.reads_stale_unmarked == 0, result.details
    assert result.revoked_tokens_accepted == 0, result.details
    assert result.unexpected_statuses == 0, result.details
    assert result.watcher_violations == 0, result.details
    assert result.audit == "ok"


async def test_no_acknowledged_save_is_lost_when_the_leader_of_a_synchronous_cluster_is_killed(tmp_path: Path) -> None:
    require_packages()
    with run_patroni_cluster(tmp_path / "cluster") as cluster:
        await create_probe_database(cluster)
        async with run_system(cluster, tmp_path, address="haproxy", database="confide_haproxy") as system:
            check(await measure_fault(system, FAULTS["leader-killed"]))


@pytest.mark.long
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("address", ADDRESSES)
async def test_every_fault_of_the_matrix_keeps_the_promises(tmp_path: Path, address: str) -> None:
    require_packages()
    faults = [one for one in FAULTS.values() if not one.may_lose]
    left_out = [] if keeps_leader_lock() else [one.title for one in faults if one.has_returning_leader]
    with run_patroni_cluster(tmp_path / "cluster") as cluster:
        await create_probe_database(cluster)
        for has_proxies in (False, True):
            folder, database = tmp_path / str(has_proxies), f"confide_{has_proxies}".lower()
            async with run_system(
                cluster, folder, address=address, database=database, has_proxies=has_proxies
            ) as system:
                for fault in (one for one in faults if one.needs_proxies == has_proxies and one.title not in left_out):
                    print(fault.title)
                    result = await measure_fault(system, fault)
                    check(result)
                    if fault.has_two_leaders:
                        continue
                    assert_within(result.unsaved_after_path_seconds, UNSAVED_SECONDS, f"{fault.title}: the first save")
                    assert_within(result.unproven_after_path_seconds, UNPROVEN_SECONDS, f"{fault.title}: the proof")
                    assert_within(result.slowest_response_seconds, RESPONSE_SECONDS, f"{fault.title}: a response")
    if left_out:
        pytest.skip(
            f"All other faults passed. Not caused, because Patroni before 3.0.3 can lose commits then: {left_out}"
        )

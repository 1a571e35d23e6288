"""On a full disk the service keeps running: reads go on, saves are rejected, and all works again with space."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import httpx2
import pytest

from confide.cli.output import EXIT_ERROR
from support.app import TYPE
from support.postgres import LocalPostgresServer, PostgresServer, find_distribution_binaries
from support.processes import Service, list_group, run_service
from support.volumes import mount_volume
from support.waiting import MAX_WAIT_SECONDS, wait_until

PARAMS = {"tenant": "acme", "integration_type": TYPE}
# Larger than a free page inside the files of a database.
LARGE = {"text": "x" * 60_000}
MAX_SAVES = 2_000


def save(client: httpx2.Client, configuration: Any, *, tenant: str = "acme") -> httpx2.Response:
    document = {"tenant": tenant, "integration_type": TYPE, "configuration": configuration}
    return client.post("/config", json=document)


def read_reasons(client: httpx2.Client) -> tuple[int, list[str]]:
    reply = client.get("/health/ready")
    return reply.status_code, [reason for reason in reply.json()["reasons"] if reason != "unsafe-durability"]


def save_until_full(client: httpx2.Client) -> httpx2.Response:
    """Save large configs of new tenants until one is rejected."""
    for number in range(MAX_SAVES):
        reply = save(client, LARGE, tenant=f"t{number}")
        if reply.status_code != 200:
            return reply
    raise AssertionError(f"{MAX_SAVES} saves fit")


def check_full_service(service: Service, token: str) -> None:
    """Assert that saves are rejected and reads go on, in every worker."""
    workers = list_group(service.process.pid) if service.process else []
    with service.client(token) as client:
        reply = save_until_full(client)
        assert (reply.status_code, reply.json()["code"]) == (503, "storage-full"), reply.text
        assert int(reply.headers["retry-after"]) > 0
        for _ in range(20):
            with service.client(token) as other:
                rejected = save(other, LARGE, tenant="new")
                assert (rejected.status_code, rejected.json()["code"]) == (503, "storage-full"), rejected.text
                assert read_reasons(other) == (200, ["storage-full"])
                read = other.get("/config", params=PARAMS)
                assert (read.status_code, read.json()["configuration"]) == (200, {"n": 1})
    assert service.log.read_text().count("storage_full reason=") in {1, 2}  # once in each worker
    assert list_group(service.process.pid) == workers if service.process else False


def check_recovered_service(service: Service, token: str) -> None:
    with service.client(token) as client:
        wait_until(lambda: read_reasons(client) == (200, []), "the service is healthy again")
        assert save(client, {"n": 2}).status_code == 200
        assert save(client, LARGE, tenant="new").status_code == 200
        assert client.get("/config", params=PARAMS).json()["configuration"] == {"n": 2}
    assert "storage_available" in service.log.read_text()


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_the_service_survives_a_full_data_folder(tmp_path: Path, kind: str) -> None:
    with (
        mount_volume(kind, tmp_path, mib=16) as volume,
        run_service(tmp_path / "service", "--workers", "2", "--data", str(volume.folder / "data")) as service,
    ):
        token = service.add_admin()
        with service.client(token) as client:
            assert save(client, {"n": 1}).status_code == 200
        volume.fill()
        check_full_service(service, token)
        volume.free()
        check_recovered_service(service, token)
        assert service.stop() == 0


def test_the_service_survives_a_full_volume_of_postgresql(tmp_path: Path) -> None:
    server = LocalPostgresServer(options=(), binaries=find_distribution_binaries())
    try:
        server.start()
        with mount_volume("tmpfs", server.root / "small", mib=24) as volume:
            space = volume.folder / "space"
            space.mkdir()
            server.own(space)
            url = server.new_database()
            server.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
            server.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET TABLESPACE small")
            with run_service(tmp_path / "service", "--workers", "2", database=url) as service:
                token = service.add_admin()
                with service.client(token) as client:
                    assert save(client, {"n": 1}).status_code == 200
                volume.fill()
                check_full_service(service, token)
                volume.free()
                check_recovered_service(service, token)
                assert service.stop() == 0
    finally:
        server.remove()


def test_a_start_on_a_full_volume_names_the_reason(tmp_path: Path) -> None:
    with mount_volume("ext4", tmp_path, mib=16) as volume:
        service = Service(tmp_path / "service", "--data", str(volume.folder / "data"))
        volume.fill()
        service.launch()
        try:
            assert service.process is not None
            assert service.process.wait(MAX_WAIT_SECONDS) == EXIT_ERROR
            log = service.log.read_text()
            assert "No space left on device" in log or "disk is full" in log, log
            assert "Traceback" not in log
            volume.free()
            service.start()
            assert service.add_admin()
        finally:
            service.end()


def test_the_service_with_postgresql_survives_a_full_data_folder(tmp_path: Path, postgres: PostgresServer) -> None:
    """The folder has the I/O events and checkpoints, so saves continue."""
    with (
        mount_volume("ext4", tmp_path, mib=16) as volume,
        run_service(
            tmp_path / "service", "--data", str(volume.folder / "data"), database=postgres.new_database()
        ) as service,
    ):
        token = service.add_admin()
        volume.fill()
        with service.client(token) as client:
            wait_until(lambda: save_many(client) and "io_sink_failed" in service.log.read_text(), "the sink fails")
            assert client.get("/config", params=PARAMS).status_code == 200
            volume.free()
            wait_until(lambda: save_many(client) and "io_sink_recovered" in service.log.read_text(), "the sink works")
        assert service.stop() == 0
        assert "Traceback" not in service.log.read_text()


def save_many(client: httpx2.Client) -> bool:
    return all(save(client, {"n": number}).status_code == 200 for number in range(20))


def test_a_limit_of_the_size_of_a_file_counts_as_a_full_disk(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        token = service.add_admin()
        with service.client(token) as client:
            assert save(client, {"n": 1}).status_code == 200
            assert service.process is not None
            resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
            check_full_service(service, token)
            resource.prlimit(
                service.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
        check_recovered_service(service, token)

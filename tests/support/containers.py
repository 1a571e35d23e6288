"""A container engine with images that are built here, because the tests cannot pull any.

`dockerd` of the distribution runs with a data folder and a socket of its own, and ends with the tests. debootstrap
makes a base image and an image of PostgreSQL. They have the certificates and the pip configuration of this machine, so
that builds reach the same package registry.

`CONFIDE_TEST_DOCKER` names a running engine instead, such as unix:///var/run/docker.sock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.processes import end_process_group
from support.waiting import wait_until

RUNNING = "CONFIDE_TEST_DOCKER"
PROGRAMS = ("docker", "docker-compose", "debootstrap")
ENGINE_PROGRAMS = ("dockerd", "containerd", "runc", "iptables")
BASE, DATABASE, SERVICE = "confide-test-base", "confide-test-postgresql", "confide-test"
PACKAGES = {
    BASE: "ca-certificates,python-is-python3,python3,python3-venv",
    DATABASE: "postgresql",
}
# The image of PostgreSQL has the variables and the data folder of the official one.
CHANGES = {
    BASE: (),
    DATABASE: (
        "ENV PGDATA=/var/lib/postgresql/data",
        "VOLUME /var/lib/postgresql/data",
        'ENTRYPOINT ["bash", "/entrypoint.sh"]',
    ),
}
ENTRYPOINT = Path(__file__).with_name("postgresql_entrypoint.sh")
# Archives of images are kept between runs, because debootstrap takes a minute.
CACHE = Path.home() / ".cache" / "confide-tests"
# Files of this machine that the package clients in a build need.
HOST_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
STOP_SECONDS = 60.0
# Two minutes on an idle machine. Where the kernel has no overlay, each step of a build copies all files.
BUILD_SECONDS = 900.0
ROOT = Path(__file__).parents[2]


def require_engine() -> None:
    """Skip the test if this machine cannot run containers. In CI, fail if a program is missing."""
    if RUNNING not in os.environ and os.geteuid() != 0:
        pytest.skip(f"CONTAINERS WERE NOT CHECKED: starting an engine needs root. Name a running one in {RUNNING}.")
    programs = PROGRAMS if RUNNING in os.environ else PROGRAMS + ENGINE_PROGRAMS
    missing = [name for name in programs if shutil.which(name, path=_build_path()) is None]
    if missing:
        reason = f"CONTAINERS WERE NOT CHECKED: {', '.join(missing)} missing. apt-get install docker.io docker-compose"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{reason} debootstrap iptables")


def _build_path() -> str:
    """Return the search path, with the folders of system programs."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class ContainerEngine:
    """A container engine, and `docker` and `docker-compose` commands that use it."""

    def __init__(self, host: str) -> None:
        self._host = host

    def build_environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONFIDE_", "APP_"))}
        # The classic builder, which needs no plugin and has a network setting.
        own = {"DOCKER_HOST": self._host, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        return {**kept, "PATH": _build_path(), **own, **more}

    def run(
        self, *command: str | Path, env: Mapping[str, str] | None = None, is_checked: bool = True, **options: Any
    ) -> str:
        """Run a command to its end and return what it printed. Raises AssertionError with that if it fails."""
        done = subprocess.run(
            command,
            env=self.build_environment(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **{"text": True, "timeout": BUILD_SECONDS, **options},
        )
        assert done.returncode == 0 or not is_checked, f"{command}: exit code {done.returncode}\n{done.stdout[-4_000:]}"
        return str(done.stdout)

    def docker(self, *args: str | Path, **options: Any) -> str:
        return self.run("docker", *args, **options).strip()

    def inspect(self, container: str, template: str) -> str:
        """Return a field of a container, named by a Go template such as `.State.Status`."""
        return self.docker("inspect", "--format", f"{{{{{template}}}}}", container)

    def has_image(self, name: str) -> bool:
        return bool(self.docker("images", "--quiet", name))

    def import_image(self, name: str) -> None:
        """Import one of the images that debootstrap makes, from the package mirror of this machine."""
        if self.has_image(name):
            return
        archive = CACHE / f"{name}-{_compute_digest(name)}.tar"
        if not archive.exists():
            CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_archive(archive, PACKAGES[name])
        changes = [part for change in CHANGES[name] for part in ("--change", change)]
        self.docker("import", *changes, archive, name)

    @contextmanager
    def run_container(self, *args: str | Path) -> Iterator[str]:
        """Start a container, and remove it with its anonymous volumes at the end. Yields its ID."""
        container = self.docker("run", "--detach", *args).splitlines()[-1]
        try:
            yield container
        except BaseException:
            print(f"log of the container:\n{self.docker('logs', container)[-4_000:]}")
            raise
        finally:
            self.docker("rm", "--force", "--volumes", container)

    def wait_until_healthy(self, container: str) -> None:
        def is_settled() -> bool:
            assert self.inspect(container, ".State.Status") == "running", self.docker("logs", container)
            return self.inspect(container, ".State.Health.Status") == "healthy"

        wait_until(is_settled, "the container is healthy")


def _compute_digest(name: str) -> str:
    """Compute a digest of all that determines an image."""
    files = [ENTRYPOINT, *(Path(path) for path in HOST_FILES if Path(path).exists())]
    content = PACKAGES[name].encode() + b"".join(path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()[:12]


def _make_archive(archive: Path, packages: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="confide-test-image-"))
    folder.chmod(0o755)  # the root of the image, which every user enters
    try:
        run = ["debootstrap", "--variant=minbase", f"--include={packages}", _read_suite(), str(folder)]
        done = subprocess.run(
            run, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _build_path()}
        )
        assert done.returncode == 0, f"debootstrap failed:\n{done.stdout[-2_000:]}{done.stderr[-2_000:]}"
        for path in HOST_FILES:
            if Path(path).exists() and (folder / path.lstrip("/")).parent.is_dir():
                shutil.copy(path, folder / path.lstrip("/"))
        shutil.copy(ENTRYPOINT, folder / "entrypoint.sh")
        partial = archive.with_suffix(".partial")
        skipped = ("--exclude=./var/cache/apt/archives", "--exclude=./var/lib/apt/lists", "--exclude=./usr/share/doc")
        subprocess.run(["tar", "--directory", folder, *skipped, "--create", "--file", partial, "."], check=True)
        partial.replace(archive)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_suite() -> str:
    """Return the name of the distribution's release, such as bookworm."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))


@contextmanager
def start_engine() -> Iterator[ContainerEngine]:
    """Yield the running engine that the environment names, or start one and end it."""
    if host := os.environ.get(RUNNING):
        yield ContainerEngine(host)
        return
    # The path of a socket has a maximum length, so it cannot be in a folder of pytest.
    folder = Path(tempfile.mkdtemp(prefix="confide-docker-"))
    engine = ContainerEngine(f"unix://{folder}/socket")
    command = [
        "dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec",
        f"--host=unix://{folder}/socket", f"--pidfile={folder}/pid",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "PATH": _build_path()}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: process.poll() is not None or _answers(engine), "the container engine answers")
        if process.poll() is not None:
            # In a container without privileges, root cannot start an engine either.
            reason = (folder / "log").read_text()[-1_000:]
            pytest.skip(
                f"CONTAINERS WERE NOT CHECKED: dockerd cannot run here. Name a running one in {RUNNING}.\n{reason}"
            )
        yield engine
    finally:
        end_process_group(process, grace_seconds=STOP_SECONDS)
        _delete_folder(folder)


def _answers(engine: ContainerEngine) -> bool:
    with suppress(AssertionError):
        return bool(engine.docker("version", "--format", "{{.Server.Version}}"))
    return False


def _delete_folder(folder: Path) -> None:
    """Delete the data of the engine, and first the mounts that it leaves, such as its network namespace."""
    mounts = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if folder in mount.parents:
            subprocess.run(["umount", mount], check=True)
    shutil.rmtree(folder)

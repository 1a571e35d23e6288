"""`confide load` and the plans for other tools, against the real service; the pages in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.browser import drawn
from support.canaries import canary
from support.processes import Service, confide, environment, running

ROOT = Path(__file__).parents[2]
JMETER = Path("/usr/share/jmeter")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path / "service", "--workers", "2") as started:
        yield started


def load(service: Service, *args: str, token: str) -> subprocess.CompletedProcess[str]:
    return confide("load", *args, cwd=service.folder, env={"CONFIDE_URL": service.url, "CONFIDE_TOKEN": token})


def test_a_run_reports_its_result_and_its_pages_render_in_a_browser(service: Service, tmp_path: Path) -> None:
    token = service.admin()
    args = (
        "--rate",
        "100",
        "--duration",
        "3s",
        "--warm-up",
        "1s",
        "--tenants",
        "10",
        "--types",
        "2",
        "--processes",
        "2",
        "--mix",
        "get=80,merge=10,put=4,list=4,versions=2",
    )
    done = load(
        service,
        *args,
        "--json",
        "a.json",
        "--html",
        "l.html",
        token=token,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("300 requests were due in 3 s, 300 were answered; no errors.")
    result = json.loads((service.folder / "a.json").read_text())
    assert [second["intended"] for second in result["seconds"]] == [100] * 3
    answered = Counter[str]()
    for second in result["seconds"]:
        answered.update(second["answered"])
    assert answered.keys() == {"get", "merge", "put", "list", "versions"}
    with service.client(token) as client:
        listed = client.get("/configs", params={"tenant": "load-*", "integration_type": "*"}).json()
    assert len(listed["configs"]) == 20

    again = load(service, *args, "--compare", "a.json", token=token)
    assert again.returncode in (0, 10), again.stderr
    assert sum("the noise" in line for line in again.stdout.splitlines()) == 2
    is_slower = any("+" in line and "exceeds" in line for line in again.stdout.splitlines())
    assert (again.returncode == 10) == (is_slower or "More requests failed" in again.stdout)

    # A difference between unlike plans says nothing about the service: it is shown, but never fails the run.
    unlike = load(service, *args, "--mix", "list=1", "--compare", "a.json", token=token)
    assert unlike.returncode == 0, unlike.stderr
    assert "The plans differ in mix" in unlike.stdout

    report = confide("io", "report", "--html", "r.html", cwd=service.folder)
    assert report.returncode == 0, report.stderr
    for name, charts in (("l.html", 4), ("r.html", 2)):
        page = drawn((service.folder / name).as_uri(), tmp_path / f"profile-{name}")
        assert page.console == []
        assert page.text.count("<canvas") == charts, name
        assert "default-src 'none'" in page.text
    for text in ((service.folder / "l.html").read_text(), (service.folder / "a.json").read_text(), done.stdout):
        assert token not in text


def test_a_page_that_asks_the_network_or_breaks_is_noticed(tmp_path: Path) -> None:
    """The planted faults of the search for what a browser complains of."""
    from confide.reports.pages import render_page  # noqa: PLC0415 - only here

    broken = render_page("x", []).replace("</body>", "<script>missing()</script></body>")
    asking = render_page("x", []).replace("</body>", '<img src="http://127.0.0.1:1/x.png"></body>')
    for number, text in enumerate((broken, asking)):
        path = tmp_path / f"{number}.html"
        path.write_text(text)
        assert drawn(path.as_uri(), tmp_path / f"profile{number}").console


def test_tokens_come_from_a_file(service: Service) -> None:
    admin = service.admin()
    with service.client(admin) as client:
        tokens = [client.post("/tokens", json={"label": f"load {n}"}).json()["token"] for n in range(3)]
    (service.folder / "token.json").write_text("\n".join(tokens) + "\n")
    args = (
        "--rate",
        "60",
        "--duration",
        "1s",
        "--warm-up",
        "100ms",
        "--tenants",
        "2",
        "--types",
        "1",
        "--token-file",
        "token.json",
    )
    done = confide("load", "--url", service.url, *args, cwd=service.folder)
    assert done.returncode == 0, done.stderr
    assert "60 were answered; no errors" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "Say --rate"),
        (("--rate", "5", "--stages", "1s:5"), "not both"),
        (("--rate", "0"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "inf"), "--rate"),
        (("--rate", "5", "--token-file", "binary"), "holds what is no token"),
        (("--rate", "5", "--mix", "get"), "The weight of get"),
        (("--rate", "5", "--mix", "drop=1"), "is not one of get, merge"),
        (("--stages", "1s"), "is not a stage"),
        (("--rate", "5", "--duration", "soon"), "is not a duration"),
        (("--rate", "5", "--compare", "service.log"), "is no result"),
        (("--rate", "5", "--token-file", "empty"), "There is no token in empty"),
        (("--token", "x", "--rate", "5"), "No such option"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    (tmp_path / "service.log").write_text("not JSON")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    done = confide("load", *args, cwd=tmp_path, env={"CONFIDE_TOKEN": canary("token")})
    assert done.returncode == 2
    assert said in done.stderr


def test_a_service_that_is_away_or_refuses_the_token_ends_the_run_before_it_begins(
    service: Service, tmp_path: Path
) -> None:
    done = load(service, "--rate", "5", token="cfd_" + "x" * 51)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    done = confide("load", "--url", "http://127.0.0.1:1", "--rate", "5", cwd=tmp_path, env={"CONFIDE_TOKEN": "x"})
    assert done.returncode == 1
    assert "No service answers" in done.stderr


def test_the_search_says_what_it_tried_and_ends_with_ten_where_nothing_will_do(service: Service) -> None:
    args = ("--find-max", "--rate", "3", "--duration", "1s", "--warm-up", "100ms", "--tenants", "2", "--types", "1")
    done = load(service, *args, "--max-p99", "0.001ms", token=service.admin())
    assert done.returncode == 10, done.stderr
    # Where the machine is busy, it says as well that the generator was a limit.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("At ")]
    assert [line.split()[0] for line in lines[:-1]] == ["3/s", "2/s"]
    assert all("too much: p99" in line for line in lines[:-1])
    assert lines[-1].startswith("Not even the lowest rate")


def interrupted(service: Service, *args: str, token: str, after: Callable[[list[str]], bool]) -> tuple[str, str]:
    """Load until what was printed is enough, then interrupt as a terminal does, with all it started; returns both."""
    given: dict[str, Any] = {
        "cwd": service.folder,
        "env": environment(CONFIDE_URL=service.url, CONFIDE_TOKEN=token),
        "start_new_session": True,
    }
    # Who starts the tests in the background ignores interrupts, and so would whatever they start.
    heeding = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", heeding, sys.executable, "-m", "confide", "load", *args]
    out = service.folder / "out.txt"
    with out.open("w") as stdout:
        process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, **given)
        deadline = time.monotonic() + 30
        while not after(out.read_text().splitlines()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        try:
            said = process.communicate(timeout=20)[1]
        finally:
            with suppress(ProcessLookupError):  # it has ended, as it should
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, said
    return out.read_text(), said


def test_a_run_that_is_stopped_tells_what_there_was_until_then(service: Service) -> None:
    token = service.admin()
    args = ("--tenants", "2", "--types", "1", "--mix", "get=1", "--warm-up", "0s", "--processes", "2")

    def answered(_: list[str]) -> bool:
        with service.client(token) as client:
            page = client.get("/metrics").text
        found = re.search(r'confide_requests_total\{route="GET /config",status="200"\} (\d+)', page)
        return found is not None and int(found[1]) > 250

    told, said = interrupted(
        service, *args, "--rate", "100", "--duration", "60s", "--json", "s.json", token=token, after=answered
    )
    assert "Traceback" not in said
    result = json.loads((service.folder / "s.json").read_text())
    length = len(result["seconds"])
    assert 1 <= length < 30
    assert [second["intended"] for second in result["seconds"]] == [100] * length
    assert told.startswith(f"Stopped after {length} s of 60 s.\n\n{length * 100} requests were due in {length} s")


def test_a_search_that_is_stopped_tells_the_best_so_far(service: Service) -> None:
    args = ("--find-max", "--rate", "4", "--duration", "1s", "--warm-up", "0s", "--tenants", "2", "--types", "1")
    told, said = interrupted(
        service, *args, "--max-p99", "5s", token=service.admin(), after=lambda lines: len(lines) == 2
    )
    assert "Traceback" not in said
    assert "Stopped after 2 rates.\nThe highest rate that keeps p99 under 5000 ms: 8/s, as far as it came." in told


def jmeter() -> list[str]:
    """How Debian's JMeter is started, or a loud skip; in CI it must be there."""
    java = shutil.which("java")
    if java is None or not (JMETER / "lib" / "ext" / "ApacheJMeter_http.jar").exists():
        if os.environ.get("CI"):
            pytest.fail("JMeter is missing, and CI must have it")
        pytest.skip("JMeter is not installed: apt-get install jmeter jmeter-http default-jdk-headless")
    jars = [str(path) for folder in ("lib", "lib/ext", "bin") for path in sorted((JMETER / folder).glob("*.jar"))]
    launcher = str(Path(__file__).parents[1] / "support" / "JMeterLauncher.java")
    paths = ":".join([*jars, "/usr/share/java/*"])
    return [java, f"-Djmeter.home={JMETER}", "-Djava.awt.headless=true", "-cp", paths, launcher]


def test_the_jmeter_plan_runs_headless(service: Service, tmp_path: Path) -> None:
    command = jmeter()
    token = service.admin()
    made = load(service, "--rate", "5", "--duration", "1s", "--warm-up", "100ms", token=token)
    assert made.returncode == 0, made.stderr
    (tmp_path / "token.json").write_text(token)
    plan = str(ROOT / "ops" / "load" / "confide.jmx")
    told = [f"-J{name}={value}" for name, value in _told(service, tmp_path).items()]
    done = subprocess.run(
        [*command, "-n", "-t", plan, *told, "-l", "result.jtl", "-j", "jmeter.log"],
        cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in (tmp_path / "result.jtl").read_text().splitlines()]
    lines = [line for line in lines if line[0].isdigit()]
    assert Counter(line[3] for line in lines) == {"200": len(lines)}, done.stdout
    calls = Counter(line[2] for line in lines)
    assert calls.keys() == {"get", "merge", "list"}
    assert calls["get"] > 0.9 * len(lines)


def _told(service: Service, folder: Path) -> dict[str, Any]:
    return {"port": service.port, "token_file": folder / "token.json", "rate": 100, "seconds": 4, "threads": 4}

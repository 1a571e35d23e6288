"""Test `confide load` and the plan for JMeter against a real service, and HTML reports in a real browser."""

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

import pytest

from confide.reports import pages
from support.browser import render_page
from support.canaries import make_canary
from support.processes import Service, build_environment, run_confide, run_service

ROOT = Path(__file__).parents[2]
JMETER = Path("/usr/share/jmeter")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with run_service(tmp_path / "service", "--workers", "2") as started:
        yield started


def run_load(service: Service, *args: str, token: str) -> subprocess.CompletedProcess[str]:
    return run_confide("load", *args, cwd=service.folder, env={"CONFIDE_URL": service.url, "CONFIDE_TOKEN": token})


def test_a_run_reports_its_result_and_its_pages_render_in_a_browser(service: Service, tmp_path: Path) -> None:
    token = service.add_admin()
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
    done = run_load(
        service,
        *args,
        "--json",
        "a.json",
        "--html",
        "l.html",
        token=token,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("300 requests were scheduled in 3 s, 300 were answered; no errors.")
    result = json.loads((service.folder / "a.json").read_text())
    assert [second["intended"] for second in result["seconds"]] == [100] * 3
    answered = Counter[str]()
    for second in result["seconds"]:
        answered.update(second["answered"])
    assert answered.keys() == {"get", "merge", "put", "list", "versions"}
    with service.client(token) as client:
        listed = client.get("/configs", params={"tenant": "load-*", "integration_type": "*"}).json()
    assert len(listed["configs"]) == 20

    again = run_load(service, *args, "--compare", "a.json", token=token)
    assert again.returncode in (0, 10), again.stderr
    assert sum("the noise" in line for line in again.stdout.splitlines()) == 2
    is_slower = any("+" in line and "exceeds" in line for line in again.stdout.splitlines())
    assert (again.returncode == 10) == (is_slower or "More requests failed" in again.stdout)

    # A difference between runs of different plans is printed, but never fails the run.
    other_plan = run_load(service, *args, "--mix", "list=1", "--compare", "a.json", token=token)
    assert other_plan.returncode == 0, other_plan.stderr
    assert "The plans differ in mix" in other_plan.stdout

    report = run_confide("io", "report", "--html", "r.html", cwd=service.folder)
    assert report.returncode == 0, report.stderr
    for name, charts in (("l.html", 4), ("r.html", 2)):
        page = render_page((service.folder / name).as_uri(), tmp_path / f"profile-{name}")
        assert page.console == []
        assert page.text.count("<canvas") == charts, name
        assert "default-src 'none'" in page.text
    for text in ((service.folder / "l.html").read_text(), (service.folder / "a.json").read_text(), done.stdout):
        assert token not in text


@pytest.mark.parametrize("fault", ["<script>missing()</script>", '<img src="http://127.0.0.1:1/x.png">'])
def test_a_page_with_a_script_error_or_a_network_request_is_detected(tmp_path: Path, fault: str) -> None:
    """Deliberate faults of the check that a page reports nothing on the console."""
    path = tmp_path / "page.html"
    path.write_text(pages.render_page("x", []).replace("</body>", f"{fault}</body>"))
    assert render_page(path.as_uri(), tmp_path / "profile").console


def test_tokens_are_read_from_a_file(service: Service) -> None:
    admin = service.add_admin()
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
    done = run_confide("load", "--url", service.url, *args, cwd=service.folder)
    assert done.returncode == 0, done.stderr
    assert "60 were answered; no errors" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "Pass --rate"),
        (("--rate", "5", "--stages", "1s:5"), "not both"),
        (("--rate", "0"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "inf"), "--rate"),
        (("--rate", "5", "--token-file", "binary"), "contains an invalid token"),
        (("--rate", "5", "--mix", "get"), "The weight of get"),
        (("--rate", "5", "--mix", "drop=1"), "is not one of get, merge"),
        (("--stages", "1s"), "is not a stage"),
        (("--rate", "5", "--duration", "soon"), "is not a duration"),
        (("--rate", "5", "--compare", "service.log"), "is not a result"),
        (("--rate", "5", "--token-file", "empty"), "There is no token in empty"),
        (("--token", "x", "--rate", "5"), "No such option"),
    ],
)
def test_invalid_options_are_explained_in_a_sentence(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    (tmp_path / "service.log").write_text("not JSON")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    done = run_confide("load", *args, cwd=tmp_path, env={"CONFIDE_TOKEN": make_canary("token")})
    assert done.returncode == 2
    assert message in done.stderr


def test_a_missing_service_or_an_invalid_token_fails_before_the_run_starts(service: Service, tmp_path: Path) -> None:
    done = run_load(service, "--rate", "5", token="cfd_" + "x" * 51)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    done = run_confide("load", "--url", "http://127.0.0.1:1", "--rate", "5", cwd=tmp_path, env={"CONFIDE_TOKEN": "x"})
    assert done.returncode == 1
    assert "No service answers" in done.stderr


def test_a_search_without_a_sustained_rate_prints_each_trial_and_exits_with_10(service: Service) -> None:
    args = ("--find-max", "--rate", "3", "--duration", "1s", "--warm-up", "100ms", "--tenants", "2", "--types", "1")
    done = run_load(service, *args, "--max-p99", "0.001ms", token=service.add_admin())
    assert done.returncode == 10, done.stderr
    # On a busy machine, the command also reports that the generator was the limit.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("At ")]
    assert [line.split()[0] for line in lines[:-1]] == ["3/s", "2/s"]
    assert all("too high: p99" in line for line in lines[:-1])
    assert lines[-1].startswith("Not even the lowest rate")


def interrupt_load(service: Service, *args: str, token: str, is_time: Callable[[list[str]], bool]) -> tuple[str, str]:
    """Interrupt `confide load` and its workers when its output is as expected. Return standard output and error."""
    # Background processes ignore SIGINT, and children inherit that: restore the default.
    restore_default = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", restore_default, sys.executable, "-m", "confide", "load", *args]
    out = service.folder / "out.txt"
    with out.open("w") as stdout:
        process = subprocess.Popen(
            command,
            cwd=service.folder,
            env=build_environment(CONFIDE_URL=service.url, CONFIDE_TOKEN=token),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while not is_time(out.read_text().splitlines()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        try:
            errors = process.communicate(timeout=20)[1]
        finally:
            with suppress(ProcessLookupError):  # the group has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, errors
    return out.read_text(), errors


def test_an_interrupted_run_reports_its_complete_seconds(service: Service) -> None:
    token = service.add_admin()
    args = ("--tenants", "2", "--types", "1", "--mix", "get=1", "--warm-up", "0s", "--processes", "2")

    def has_answered_requests(_: list[str]) -> bool:
        with service.client(token) as client:
            page = client.get("/metrics").text
        found = re.search(r'confide_requests_total\{route="GET /config",status="200"\} (\d+)', page)
        return found is not None and int(found[1]) > 250

    options = (*args, "--rate", "100", "--duration", "60s", "--json", "s.json")
    output, errors = interrupt_load(service, *options, token=token, is_time=has_answered_requests)
    assert "Traceback" not in errors
    result = json.loads((service.folder / "s.json").read_text())
    length = len(result["seconds"])
    assert 1 <= length < 30
    assert [second["intended"] for second in result["seconds"]] == [100] * length
    scheduled = f"{length * 100} requests were scheduled in {length} s"
    assert output.startswith(f"Stopped after {length} s of 60 s.\n\n{scheduled}")


def test_an_interrupted_search_reports_the_best_rate_so_far(service: Service) -> None:
    args = ("--find-max", "--rate", "4", "--duration", "1s", "--warm-up", "0s", "--tenants", "2", "--types", "1")
    output, errors = interrupt_load(
        service, *args, "--max-p99", "5s", token=service.add_admin(), is_time=lambda lines: len(lines) == 2
    )
    assert "Traceback" not in errors
    assert "Stopped after 2 rates.\nThe highest rate that keeps p99 under 5000 ms: 8/s, not narrowed down." in output


def find_jmeter() -> list[str]:
    """Return the command that starts Debian's JMeter. Without JMeter, skip the test, or fail in CI."""
    java = shutil.which("java")
    if java is None or not (JMETER / "lib" / "ext" / "ApacheJMeter_http.jar").exists():
        if os.environ.get("CI"):
            pytest.fail("CI must have JMeter: apt-get install jmeter jmeter-http default-jdk-headless")
        pytest.skip("JMeter is not installed: apt-get install jmeter jmeter-http default-jdk-headless")
    jars = [str(path) for folder in ("lib", "lib/ext", "bin") for path in sorted((JMETER / folder).glob("*.jar"))]
    launcher = str(Path(__file__).parents[1] / "support" / "JMeterLauncher.java")
    paths = ":".join([*jars, "/usr/share/java/*"])
    return [java, f"-Djmeter.home={JMETER}", "-Djava.awt.headless=true", "-cp", paths, launcher]


def test_the_jmeter_plan_runs_headless(service: Service, tmp_path: Path) -> None:
    command = find_jmeter()
    token = service.add_admin()
    prepared = run_load(service, "--rate", "5", "--duration", "1s", "--warm-up", "100ms", token=token)
    assert prepared.returncode == 0, prepared.stderr
    (tmp_path / "token.json").write_text(token)
    plan = str(ROOT / "ops" / "load" / "confide.jmx")
    properties = {
        "port": service.port,
        "token_file": tmp_path / "token.json",
        "rate": 100,
        "seconds": 4,
        "threads": 4,
    }
    options = [f"-J{name}={value}" for name, value in properties.items()]
    done = subprocess.run(
        [*command, "-n", "-t", plan, *options, "-l", "result.jtl", "-j", "jmeter.log"],
        cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in (tmp_path / "result.jtl").read_text().splitlines()]
    samples = [line for line in lines if line[0].isdigit()]
    assert Counter(sample[3] for sample in samples) == {"200": len(samples)}, done.stdout
    operations = Counter(sample[2] for sample in samples)
    assert operations.keys() == {"get", "merge", "list"}
    assert operations["get"] > 0.9 * len(samples)

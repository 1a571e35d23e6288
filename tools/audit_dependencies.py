"""Audit the pinned dependencies: known vulnerabilities, licenses and a list of components (SBOM).

Run it with `make audit`, which installs the programs that it calls. It fails if a pinned package was not audited, for
example because the source of advisories cannot be reached.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROGRAMS = ROOT / ".make" / "audit" / "bin"
RESULTS = ROOT / ".make" / "audit" / "results"
# An error names this many packages.
MAX_NAMED = 5
LOCK_FILES = ("requirements.txt", "requirements-dev.txt")
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
# Licenses that allow the use of a package as a dependency of an Apache-2.0 or proprietary service.
ALLOWED_LICENSES = {
    "0BSD",
    "3-Clause BSD License", "Apache Software License", "Apache-2.0", "BSD License", "BSD-2-Clause", "BSD-3-Clause",
    "DFSG approved", "ISC", "MIT", "MIT License", "MIT-0", "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0",
    "any-OSI",  # apsw, which may be used under any license that the Open Source Initiative approves
}  # fmt: skip

Pins = Mapping[str, frozenset[str]]


class AuditFailed(Exception):
    """A check found something, or could not check every package."""


def read_pins(texts: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the pinned versions of each package in lock files, for every platform."""
    pins: dict[str, frozenset[str]] = {}
    for text in texts:
        for name, version in _PIN.findall(text):
            pins[normalize_name(name)] = pins.get(normalize_name(name), frozenset()) | {version}
    return pins


def normalize_name(name: str) -> str:
    """Return the form of a package name that is compared (PyPA, names and normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def judge_vulnerabilities(report: str, pins: Pins) -> str:
    """Return a summary of a JSON report of pip-audit. Raises `AuditFailed` for a vulnerability or a missing package."""
    try:
        dependencies: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise AuditFailed("pip-audit wrote no report, so nothing was audited.") from None
    audited = {(normalize_name(one["name"]), one.get("version")) for one in dependencies if "skip_reason" not in one}
    pinned = {(name, version) for name, versions in pins.items() for version in versions}
    found = [
        f"{one['name']} {one['version']}: {vulnerability['id']}"
        for one in dependencies
        for vulnerability in one.get("vulns", [])
    ]
    if found:
        raise AuditFailed("Known vulnerabilities: " + ", ".join(found) + ".")
    if missing := sorted(pinned - audited):
        names = ", ".join(f"{name} {version}" for name, version in missing[:MAX_NAMED])
        raise AuditFailed(
            f"{len(pinned & audited)} of {len(pinned)} packages were audited. Not audited: {names}"
            f"{' and others' if len(missing) > MAX_NAMED else ''}. Check that the source of advisories can be reached."
        )
    return f"{len(pinned)} packages have no known vulnerability"


def judge_licenses(report: str, pins: Pins) -> str:
    """Return a summary of a JSON report of pip-licenses. Raises `AuditFailed` for a license that is not allowed."""
    try:
        licenses = {normalize_name(one["Name"]): str(one["License"]) for one in json.loads(report)}
    except (ValueError, KeyError, TypeError):
        raise AuditFailed("pip-licenses wrote no report, so no license was checked.") from None
    # A package of another platform is not installed here.
    checked = {name: text for name, text in licenses.items() if name in pins}
    if len(checked) < len(pins) / 2:
        raise AuditFailed(f"{len(checked)} of {len(pins)} packages are installed. Run make test before.")
    unknown = [f"{name}: {text.splitlines()[0]}" for name, text in checked.items() if not _is_allowed(text)]
    if unknown:
        raise AuditFailed("Licenses that are not on the list of allowed ones: " + ", ".join(sorted(unknown)) + ".")
    absent = ", ".join(sorted(set(pins) - set(checked)))
    return f"{len(checked)} packages have an allowed license" + (f"; not installed here: {absent}" if absent else "")


def _is_allowed(text: str) -> bool:
    lines = text.splitlines()
    return bool(lines) and all(part.strip() in ALLOWED_LICENSES for part in re.split(r" OR | AND |;", lines[0]))


def judge_components(bill: str, pins: Pins) -> str:
    """Return a summary of a CycloneDX document. Raises `AuditFailed` if it lacks a pinned package."""
    try:
        listed = {(normalize_name(one["name"]), one["version"]) for one in json.loads(bill)["components"]}
    except (ValueError, KeyError, TypeError):
        raise AuditFailed("cyclonedx-py wrote no list of components.") from None
    pinned = {(name, version) for name, versions in pins.items() for version in versions}
    if missing := sorted(pinned - listed):
        raise AuditFailed("The list of components lacks " + ", ".join(" ".join(one) for one in missing) + ".")
    return f"{len(pinned)} components are listed"


def run(*command: str | Path) -> str:
    """Run a program and return what it prints. Its errors are shown, and its report decides about the result."""
    return subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=False, timeout=600).stdout


def main() -> int:
    """Run all checks and return the exit code: 1 if one failed."""
    texts = {name: (ROOT / name).read_text() for name in LOCK_FILES}
    every, needed = read_pins(list(texts.values())), read_pins([texts["requirements.txt"]])
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # Without markers: the packages of every platform are audited.
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(
            "".join(f"{name}=={version}\n" for name, versions in every.items() for version in versions)
        )
        audit = (PROGRAMS / "pip-audit", "-r", requirements, "--no-deps", "--disable-pip", "-f", "json")
        environment = ROOT / ".venv" / "bin" / "python"
        checks: dict[str, tuple[Sequence[str | Path], Callable[[str, Pins], str], Pins]] = {
            "vulnerabilities": ((*audit, "--progress-spinner", "off"), judge_vulnerabilities, every),
            "licenses": (
                (PROGRAMS / "pip-licenses", "--python", environment, "-f", "json", "--from", "mixed", "--with-system"),
                judge_licenses,
                every,
            ),
            # What is delivered: without the tools of the developers.
            "components": (
                (PROGRAMS / "cyclonedx-py", "requirements", ROOT / "requirements.txt", "--of", "JSON"),
                judge_components,
                needed,
            ),
        }
        code = 0
        for name, (command, judge, pins) in checks.items():
            report = run(*command)
            (RESULTS / f"{name}.json").write_text(report)
            try:
                print(f"{name}: {judge(report, pins)}")
            except AuditFailed as error:
                print(f"{name}: FAILED. {error}", file=sys.stderr)
                code = 1
    print(f"The reports are in {RESULTS.relative_to(ROOT)}. components.json is the CycloneDX SBOM.")
    return code


if __name__ == "__main__":
    sys.exit(main())

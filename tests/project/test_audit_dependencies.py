"""The audit of dependencies fails where it finds something, and where it audited nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audit_dependencies import AuditFailed, judge_components, judge_licenses, judge_vulnerabilities, read_pins

LOCK = """
anyio==4.16.0 ; sys_platform != 'emscripten' \\
    --hash=sha256:00
Typing_Extensions==4.15.0 \\
    --hash=sha256:00
uvicorn[standard]==0.40.0
    # via confide
"""
PINS = read_pins([LOCK])
AUDITED = [
    {"name": "anyio", "version": "4.16.0", "vulns": []},
    {"name": "typing-extensions", "version": "4.15.0", "vulns": []},
    {"name": "uvicorn", "version": "0.40.0", "vulns": []},
]


def report(dependencies: list[dict[str, Any]]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_every_pin_of_a_lock_file_is_read_for_every_platform() -> None:
    assert {
        "anyio": frozenset({"4.16.0"}),
        "typing-extensions": frozenset({"4.15.0"}),
        "uvicorn": frozenset({"0.40.0"}),
    } == PINS


def test_an_audit_of_every_package_passes() -> None:
    assert judge_vulnerabilities(report(AUDITED), PINS) == "3 packages have no known vulnerability"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "nothing was audited"),
        ("no connection", "nothing was audited"),
        ("{}", "nothing was audited"),
        (report([]), "0 of 3 packages were audited"),
        (report(AUDITED[:2]), "2 of 3 packages were audited. Not audited: uvicorn 0.40.0"),
        (report([*AUDITED[:2], {"name": "uvicorn", "skip_reason": "not found"}]), "2 of 3 packages"),
        (report([*AUDITED[:2], {**AUDITED[2], "version": "0.39.0"}]), "Not audited: uvicorn 0.40.0"),
        (report([*AUDITED[:2], {**AUDITED[2], "vulns": [{"id": "PYSEC-2026-1"}]}]), "uvicorn 0.40.0: PYSEC-2026-1"),
    ],
)
def test_an_audit_that_is_incomplete_or_finds_something_fails(text: str, reason: str) -> None:
    with pytest.raises(AuditFailed, match=reason):
        judge_vulnerabilities(text, PINS)


def format_licenses(**licenses: str) -> str:
    return json.dumps([{"Name": name, "License": text} for name, text in licenses.items()])


def test_licenses_pass_if_each_part_of_each_is_allowed() -> None:
    text = format_licenses(anyio="MIT", Typing_Extensions="PSF-2.0", uvicorn="Apache-2.0 OR BSD-3-Clause", other="GPL")
    assert judge_licenses(text, PINS) == "3 packages have an allowed license"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no license was checked"),
        ("[]", "0 of 3 packages are installed"),
        (format_licenses(anyio="MIT", uvicorn="AGPL-3.0"), "uvicorn: AGPL-3.0"),
        (format_licenses(anyio="MIT", uvicorn="MIT AND GPL-2.0"), "uvicorn: MIT AND GPL-2.0"),
        (format_licenses(anyio="MIT", uvicorn="UNKNOWN"), "uvicorn: UNKNOWN"),
    ],
)
def test_a_license_that_is_unknown_or_not_allowed_fails(text: str, reason: str) -> None:
    with pytest.raises(AuditFailed, match=reason):
        judge_licenses(text, PINS)


def test_a_list_of_components_must_have_every_package() -> None:
    components = [{"name": one["name"], "version": one["version"]} for one in AUDITED]
    assert judge_components(json.dumps({"components": components}), PINS) == "3 components are listed"
    for text in ("", json.dumps({"components": []}), json.dumps({"components": components[1:]})):
        with pytest.raises(AuditFailed):
            judge_components(text, PINS)

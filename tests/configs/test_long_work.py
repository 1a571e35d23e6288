"""Requests about large configurations hold the event loop only for short steps, and their responses are bounded."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from confide import fair_scheduler, strict_json
from confide.configs.diff import diff
from confide.configs.merge import merge
from confide.errors import MAX_LISTED_VIOLATIONS, MAX_POINTER_CHARACTERS
from confide.integration_types import masking
from confide.integration_types.schema import Schema
from confide.slices import SlicedCall
from support.app import ADMIN, RunningApp
from support.bounds import assert_within
from support.slicing import MAX_STEP_SECONDS, run_in_steps

Json = dict[str, Any]
# Other machines are slower than the one on which the limits were set, and busy.
SLOWER = 6
LISTS: Json = {"a": [{} for _ in range(70_000)]}
MAPS: Json = {"a": [{f"m{number}": number for number in range(100)} for _ in range(200)]}
DECIMALS: Json = {"a": [number + 0.5 for number in range(25_000)]}
PATTERNS = {"patternProperties": {f"^m{number}.*": {"title": "x"} for number in range(90)}}

COMPUTATIONS: dict[str, Callable[[Json], object]] = {
    "parse": lambda value: strict_json.read_object(json.dumps({"c": value}).encode()),
    "encode": strict_json.encode_configuration,
    "compare": lambda value: strict_json.is_equal(value, json.loads(json.dumps(value))),
    "find masks": masking.require_no_mask,
    "mask": masking.mask,
    "mask by patterns": lambda value: masking.mask(value, Schema(PATTERNS).place),
    "list masked": lambda value: list(masking.list_masked_leaves(value, masking.PLACE_WITHOUT_SCHEMA)),
    "merge": lambda value: merge(value, value),
    "diff": lambda value: diff({**value, "b": 1}, value, secrets=masking.PLACE_WITHOUT_SCHEMA),
    "validate": Schema({"properties": {"a": {"items": {"maxProperties": 200}}}}).check,
    "fill in defaults": Schema({"properties": {"a": {"items": {"properties": {"x": {"default": 1}}}}}}).fill_defaults,
}


@pytest.mark.parametrize("shape", [LISTS, MAPS, DECIMALS], ids=["lists", "maps", "decimals"])
@pytest.mark.parametrize("name", COMPUTATIONS)
def test_a_computation_over_a_large_configuration_pauses_often(name: str, shape: Json) -> None:
    steps = run_in_steps(lambda: COMPUTATIONS[name](shape))
    assert_within(steps.longest_seconds, MAX_STEP_SECONDS * SLOWER, f"the longest step of {name}")


class SliceRecorder:
    """Records the processor time of each slice of all computations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        run_slice = SlicedCall.run_slice

        def record(call: SlicedCall[Any], seconds: float) -> bool:
            began = time.thread_time()
            try:
                return run_slice(call, seconds)
            finally:
                self.seconds.append(time.thread_time() - began)

        monkeypatch.setattr(SlicedCall, "run_slice", record)


def build_actions(app: RunningApp, editor: str, viewer: str, admin: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    key = {"tenant": "acme", "integration_type": "large"}
    changed = {"a": [*LISTS["a"][:30_000], 1]}
    body = {**key, "configuration": changed}
    return {
        "save": lambda: app.request("PUT", "/config", token=editor, json=body),
        "dry run": lambda: app.request("PUT", "/config?dry_run=true", token=editor, json=body),
        "rollback": lambda: app.request("POST", "/config/rollback", token=editor, json={**key, "version": 1}),
        "viewer's read": lambda: app.read(viewer, type_="large", headers={"Cache-Control": "no-cache"}),
        "viewer's version": lambda: app.request("GET", "/config/versions/1", token=viewer, params=key),
        "viewer's diff": lambda: app.request(
            "GET", "/config/diff", token=viewer, params={**key, "from": "0", "to": "1"}
        ),
        "viewer's export": lambda: app.request("GET", "/configs/export", token=viewer),
        "conforms=false": lambda: app.request("GET", "/configs", token=viewer, params={"conforms": "false"}),
        "type check": lambda: app.request("GET", "/integration-types/large/conformance", token=admin),
    }


@pytest.mark.parametrize(
    "action",
    [
        "save", "dry run", "rollback", "viewer's read", "viewer's version", "viewer's diff", "viewer's export",
        "conforms=false", "type check",
    ],
)  # fmt: skip
async def test_a_request_about_a_large_configuration_runs_in_slices(
    sqlite_app: RunningApp, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = sqlite_app
    admin = await app.create_token("root", *ADMIN)
    editor = await app.create_token("editor", ("editor", "acme", "*"))
    viewer = await app.create_token("viewer", ("viewer", "acme", "*"))
    schema = {"properties": {"a": {"items": {"required": [f"n{number}" for number in range(10)]}}}}
    assert (
        await app.request("PUT", "/integration-types/large", token=admin, json={"schema": schema})
    ).status_code == 200
    assert (await app.save(editor, {"a": LISTS["a"][:30_000]}, type_="large")).status_code == 200
    assert (await app.save(editor, {"b": 1}, type_="large")).status_code == 200
    recorder = SliceRecorder(monkeypatch)
    reply = await build_actions(app, editor, viewer, admin)[action]()
    assert reply.status_code == 200, reply.text[:500]
    assert len(recorder.seconds) > 3
    promised = (fair_scheduler.SLICE_SECONDS + MAX_STEP_SECONDS) * SLOWER
    assert_within(max(recorder.seconds), promised, f"the longest slice of a {action}")


async def test_the_pointers_of_a_response_are_bounded(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    name = "n" * 250
    inner: Any = {f"m{number}": masking.MASK for number in range(2_000)}
    before: Any = {f"m{number}": 1 for number in range(2_000)}
    after: Any = {f"m{number}": 2 for number in range(2_000)}
    for _ in range(28):
        inner, before, after = {name: inner}, {name: before}, {name: after}
    masked = await app.save(token, inner)
    assert (masked.status_code, masked.json()["code"]) == (422, "mask-sent-back")
    assert 0 < len(masked.json()["errors"]) <= MAX_LISTED_VIOLATIONS
    assert len(masked.content) < MAX_POINTER_CHARACTERS * 2
    for configuration in (before, after):
        assert (await app.save(token, configuration)).status_code == 200
    params = {"tenant": "acme", "integration_type": "flight-information-system", "from": "1", "to": "2"}
    compared = await app.request("GET", "/config/diff", token=token, params=params)
    assert compared.status_code == 200
    (pointer,) = compared.json()["changed"]
    assert compared.json()["changed"][pointer]["to"]["m0"] == 2
    assert len(compared.content) < 500_000

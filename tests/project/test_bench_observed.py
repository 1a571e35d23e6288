"""Each SQL statement has a name, and dashboard, alerts and docs use existing metrics."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from confide.database.engine import UNNAMED, find_operation
from confide.server.metrics import COUNTERS, GAUGES
from confide.telemetry.metrics_page import BUCKET_COUNTER, DURATION_COUNTER, HISTOGRAM

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "confide"
_STATEMENT = re.compile(r"\s*(?:/\*.*?\*/\s*)?(?:SELECT|INSERT|UPDATE|DELETE|WITH)\b(?! TIME)(?=\s)")
# Modules whose statements are recorded under other names, and sinks, which record nothing.
_OTHERS = {
    "engine.py",
    "transaction.py",
    "writer.py",
    "schema.py",
    "event_files.py",
    "rows.py",
    "postgresql.py",
    "sqlite.py",
}


def find_statements(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each SQL statement of a file; for an f-string, its beginning."""
    tree = ast.parse(path.read_text())
    within = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        text: object = None
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            text = node.values[0].value
        elif isinstance(node, ast.Constant) and id(node) not in within:
            text = node.value
        if isinstance(text, str) and _STATEMENT.match(text):
            yield node.lineno, text  # type: ignore[attr-defined]


def find_unnamed(folder: Path) -> list[str]:
    return [
        f"{path.name}:{line}"
        for path in sorted(folder.rglob("*.py"))
        if path.name not in _OTHERS
        for line, text in find_statements(path)
        if find_operation(text) == UNNAMED
    ]


def test_every_statement_has_a_name() -> None:
    found = [find_operation(text) for path in SOURCE.rglob("*.py") for _, text in find_statements(path)]
    assert len(found) > 90
    assert find_unnamed(SOURCE) == []


def test_a_deliberately_unnamed_statement_is_found(tmp_path: Path) -> None:
    (tmp_path / "configs.py").write_text(
        'A = "SELECT 1"\nB = f"""\n    UPDATE x SET {A}"""\nC = "/* configs.c */ DELETE FROM x"\nD = "a SELECT"\n'
    )
    assert find_unnamed(tmp_path) == ["configs.py:1", "configs.py:2"]


def list_metrics() -> set[str]:
    counters = {f"{name}_total" for name, _, _ in COUNTERS.values() if name not in (BUCKET_COUNTER, DURATION_COUNTER)}
    gauges = {name for name, _, _ in GAUGES.values()}
    return counters | gauges | {f"{HISTOGRAM}_{part}" for part in ("bucket", "sum", "count")}


def find_metrics(text: str) -> set[str]:
    return set(re.findall(r"\bconfide_[a-z_]+", text))


def test_the_dashboard_shows_existing_metrics() -> None:
    dashboard = json.loads((ROOT / "ops" / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 20
    named = set().union(*map(find_metrics, queries))
    assert named <= list_metrics()
    # The dashboard shows every other metric.
    assert list_metrics() - named <= {
        "confide_fills_total", "confide_read_bytes_total", "confide_usage_lost_total", "confide_read_pairs",
        "confide_memory_entries", "confide_io_sink_failures_total", "confide_io_seconds_count",
    }  # fmt: skip


def test_alerts_use_existing_metrics_and_say_what_to_check_first() -> None:
    rules = yaml.safe_load((ROOT / "ops" / "prometheus-alerts.yml").read_text())["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert find_metrics(rule["expr"]) <= list_metrics()
        assert rule["annotations"].keys() == {"summary", "first"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_metrics_page_lists_every_metric() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for name, _, _ in [*COUNTERS.values(), *GAUGES.values()]:
        if name not in (BUCKET_COUNTER, DURATION_COUNTER):
            assert name in page
    assert HISTOGRAM in page


@pytest.mark.parametrize("name", ["confide_nothing_total", "confide_io_steps_total"])
def test_a_deliberately_unknown_metric_is_found(name: str) -> None:
    assert not find_metrics(f"sum({name})") <= list_metrics()

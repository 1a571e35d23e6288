"""A self-contained HTML page of tables, zoomable charts and waterfalls. It loads nothing from the network."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

# The page may use only its own inline styles and scripts.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'"
)


class Part(Protocol):
    """A part of a page."""

    def render(self) -> str:
        """Render HTML in which all text is escaped."""


@dataclass(frozen=True, slots=True)
class Text:
    """A heading and a paragraph."""

    heading: str
    paragraph: str = ""

    def render(self) -> str:
        paragraph = f"<p>{html.escape(self.paragraph)}</p>" if self.paragraph else ""
        return f"<h2>{html.escape(self.heading)}</h2>{paragraph}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table. Numbers are aligned to the right."""

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]

    def render(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(f"<tr>{''.join(map(_render_cell, row))}</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True, slots=True)
class LineChart:
    """Values over time. `times` are seconds since 1970. Each series has a value or None for each time."""

    title: str
    times: Sequence[float]
    series: Mapping[str, Sequence[float | None]]
    unit: str

    def to_document(self) -> dict[str, Any]:
        return {
            "kind": "lines",
            "title": self.title,
            "x": list(self.times),
            "series": [{"label": label, "values": list(values)} for label, values in self.series.items()],
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class BarChart:
    """A bar for each label."""

    title: str
    labels: Sequence[str]
    values: Sequence[float]
    unit: str

    def to_document(self) -> dict[str, Any]:
        return {
            "kind": "bars",
            "title": self.title,
            "labels": list(self.labels),
            "series": [{"label": self.unit, "values": list(self.values)}],
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class Charts:
    """Groups of charts by name. The page shows one group at a time, the first one initially."""

    groups: Mapping[str, Sequence[LineChart | BarChart]]

    def render(self) -> str:
        documents = {name: [chart.to_document() for chart in charts] for name, charts in self.groups.items()}
        # A browser would end the script at a `</script>` within the data.
        data = json.dumps(documents).replace("<", "\\u003c")
        return f'<div class="charts"><script type="application/json">{data}</script></div>'


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a waterfall. The times are milliseconds; `start_ms` counts from the start of the waterfall."""

    label: str
    start_ms: float
    duration_ms: float
    depth: int = 0
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Bars on one time axis, one below the other."""

    title: str
    bars: Sequence[Bar] = field(default_factory=list)

    def render(self) -> str:
        end_ms = max((bar.start_ms + bar.duration_ms for bar in self.bars), default=0.0) or 1.0
        lines = "".join(self._render_line(bar, end_ms) for bar in self.bars)
        return f'<h3>{html.escape(self.title)}</h3><div class="waterfall">{lines}</div>'

    def _render_line(self, bar: Bar, end_ms: float) -> str:
        left_percent = bar.start_ms / end_ms * 100
        width_percent = max(bar.duration_ms / end_ms * 100, 0.15)
        kind = "error" if bar.is_error else "operation" if bar.depth else "request"
        return (
            f'<div class="line"><span class="name" style="padding-left:{bar.depth}em">{html.escape(bar.label)}</span>'
            f'<span class="duration">{bar.duration_ms:,.2f} ms</span>'
            f'<span class="track"><span class="{kind}" style="left:{left_percent:.3f}%;width:{width_percent:.3f}%">'
            "</span></span></div>"
        )


def render_page(title: str, parts: Iterable[Part]) -> str:
    """Render parts as a self-contained page."""
    package = files("confide.reports")
    style = package.joinpath("vendor/uPlot.min.css").read_text() + package.joinpath("page.css").read_text()
    script = package.joinpath("vendor/uPlot.iife.min.js").read_text() + package.joinpath("charts.js").read_text()
    body = "".join(part.render() for part in parts)
    escaped_title = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escaped_title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(CONTENT_SECURITY_POLICY)}">'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{style}</style></head><body><h1>{escaped_title}</h1>{body}<script>{script}</script></body></html>\n"
    )


def _render_cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{html.escape('' if value is None else str(value))}</td>"
    return f'<td class="number">{value:,.2f}</td>' if isinstance(value, float) else f'<td class="number">{value:,}</td>'

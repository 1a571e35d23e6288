"""One page in one file: tables, charts that can be zoomed, waterfalls; it may load nothing from anywhere."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

# What was said in the page itself is all it may use.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'"


class Part(Protocol):
    """A part of a page."""

    def written(self) -> str:
        """The part as HTML, with nothing in it that was not escaped."""


@dataclass(frozen=True, slots=True)
class Text:
    """A heading and a paragraph."""

    heading: str
    paragraph: str = ""

    def written(self) -> str:
        said = f"<p>{html.escape(self.paragraph)}</p>" if self.paragraph else ""
        return f"<h2>{html.escape(self.heading)}</h2>{said}"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows; numbers stand to the right."""

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]

    def written(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True, slots=True)
class LineChart:
    """Values over time: `times` in seconds since 1970, a value or None for each of them in every series."""

    title: str
    times: Sequence[float]
    series: Mapping[str, Sequence[float | None]]
    unit: str

    def described(self) -> dict[str, Any]:
        return {
            "kind": "lines",
            "title": self.title,
            "x": list(self.times),
            "series": [{"label": label, "values": list(values)} for label, values in self.series.items()],
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class BarChart:
    """Counts by what each bar stands for."""

    title: str
    labels: Sequence[str]
    values: Sequence[float]
    unit: str

    def described(self) -> dict[str, Any]:
        return {
            "kind": "bars",
            "title": self.title,
            "labels": list(self.labels),
            "series": [{"label": self.unit, "values": list(self.values)}],
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts of several things, of which one is looked at at a time; the first one at first."""

    choices: Mapping[str, Sequence[LineChart | BarChart]]

    def written(self) -> str:
        described = {name: [chart.described() for chart in charts] for name, charts in self.choices.items()}
        # What a browser would take for the end of the script must not stand in it.
        data = json.dumps(described).replace("<", "\\u003c")
        return f'<div class="charts"><script type="application/json">{data}</script></div>'


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a waterfall; begin and length in milliseconds from the beginning of it all."""

    label: str
    begin: float
    length: float
    depth: int = 0
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Waterfall:
    """What happened when, one below the other."""

    title: str
    bars: Sequence[Bar] = field(default_factory=list)

    def written(self) -> str:
        end = max((bar.begin + bar.length for bar in self.bars), default=0.0) or 1.0
        lines = "".join(self._line(bar, end) for bar in self.bars)
        return f'<h3>{html.escape(self.title)}</h3><div class="waterfall">{lines}</div>'

    def _line(self, bar: Bar, end: float) -> str:
        place = f"left:{bar.begin / end * 100:.3f}%;width:{max(bar.length / end * 100, 0.15):.3f}%"
        kind = "bad" if bar.is_bad else "own" if bar.depth else "whole"
        return (
            f'<div class="line"><span class="name" style="padding-left:{bar.depth}em">{html.escape(bar.label)}</span>'
            f'<span class="took">{bar.length:,.2f} ms</span>'
            f'<span class="track"><span class="{kind}" style="{place}"></span></span></div>'
        )


def page(title: str, parts: Iterable[Part]) -> str:
    """Write a page that stands alone."""
    room = files("confide.reports")
    style = room.joinpath("vendor/uPlot.min.css").read_text() + room.joinpath("page.css").read_text()
    script = room.joinpath("vendor/uPlot.iife.min.js").read_text() + room.joinpath("draw.js").read_text()
    body = "".join(part.written() for part in parts)
    name = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{style}</style></head><body><h1>{name}</h1>{body}<script>{script}</script></body></html>\n"
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{html.escape('' if value is None else str(value))}</td>"
    return f'<td class="number">{value:,.2f}</td>' if isinstance(value, float) else f'<td class="number">{value:,}</td>'

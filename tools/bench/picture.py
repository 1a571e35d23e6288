"""Draw the processor time of reads on a logarithmic scale, for the README."""

from __future__ import annotations

import math
from pathlib import Path
from xml.sax.saxutils import escape

from results import Results

WIDTH, LEFT, BAR, GAP, TOP = 860, 330, 24, 10, 54
GROUP = "read"


def draw(results: Results, path: Path, *, date: str) -> None:
    rows = sorted((row for row in results.rows if row.group == GROUP), key=lambda row: row.cpu_us)
    max_cpu_us = max(row.cpu_us for row in rows)
    scale = (WIDTH - LEFT - 110) / math.log10(max_cpu_us)
    height = TOP + len(rows) * (BAR + GAP) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        ' font-family="system-ui, sans-serif" font-size="14">',
        f"<title>CPU time of one read, {date}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="28" font-size="16" font-weight="600" fill="#1f2933">',
        f"CPU time of one read, µs (logarithmic), {date}</text>",
    ]
    for number, row in enumerate(rows):
        y = TOP + number * (BAR + GAP)
        width = max(2.0, math.log10(max(row.cpu_us, 1.0)) * scale)
        color = "#0b6e99" if row.name.startswith("Confide") else "#b8c4ce"
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 17}" text-anchor="end" fill="#1f2933">{escape(row.name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="3" fill="{color}"/>',
            f'<text x="{LEFT + width + 8:.1f}" y="{y + 17}" fill="#1f2933">{row.cpu_us:,.1f}</text>',
        ]
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")

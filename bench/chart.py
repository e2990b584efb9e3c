"""A chart as SVG: how far each case is from its bar."""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from bench.case import Row

_ROW: Final = 26
_TOP: Final = 64
_LABEL: Final = 430
_PLOT: Final = 420
_RIGHT: Final = 190
# From a quarter of the bar to four times as good as it.
_DECADES: Final = math.log(4)
_MET, _NOT_MET, _INK, _PALE = "#2e7d32", "#c62828", "#222", "#bbb"


def chart(rows: Sequence[Row], *, subtitle: str) -> str:
    """The rows that have a bar: to the right of the line is what is better than it, on a scale of times."""
    shown = [row for row in rows if row.bar is not None]
    height = _TOP + _ROW * len(shown) + 16
    size = f'width="{_LABEL + _PLOT + _RIGHT}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13" fill="{_INK}">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(12, 20, "How each case compares with its bar", weight="bold"),
        _text(12, 38, subtitle),
    ]
    for times, words in ((0.25, "¼"), (0.5, "½"), (1, "the bar"), (2, "2x as good"), (4, "4x")):
        x = _place(times)
        width = 2 if times == 1 else 1
        parts.append(
            f'<line x1="{x}" y1="{_TOP - 6}" x2="{x}" y2="{height - 12}" stroke="{_PALE}" stroke-width="{width}"/>'
        )
        parts.append(_text(x, _TOP - 10, words, anchor="middle"))
    for number, row in enumerate(shown):
        parts += _bar(row, _TOP + _ROW * number)
    return "\n".join([*parts, "</svg>\n"])


def _bar(row: Row, y: int) -> list[str]:
    assert row.bar is not None
    figure = row.ours if row.compared is None else row.compared
    times = (figure / row.bar.limit) if row.bar.least else (row.bar.limit / figure if figure else math.inf)
    x, middle = _place(times), _place(1)
    begin, width = min(x, middle), max(abs(x - middle), 2)
    color = _MET if row.met else _NOT_MET
    words = f"{figure:.2f} (bar {row.bar})" if row.compared is not None else f"{figure:.3g} {row.unit} (bar {row.bar})"
    return [
        _text(_LABEL - 10, y + 17, f"{row.what}", anchor="end"),
        f'<rect x="{begin}" y="{y + 4}" width="{width}" height="{_ROW - 8}" fill="{color}"/>',
        _text(_LABEL + _PLOT + 12, y + 17, words),
    ]


def _place(times: float) -> float:
    """Where something so many times as good as its bar stands, on a logarithmic scale that ends at both sides."""
    share = max(-1.0, min(1.0, math.log(max(times, 1e-9)) / _DECADES))
    return round(_LABEL + _PLOT * (share + 1) / 2, 1)


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'

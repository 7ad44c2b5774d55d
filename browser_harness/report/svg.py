"""The few marks that the plots are made of, as escaped SVG text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from browser_harness.judge.units import Unit, show_round

WIDTH = 560
LEFT, RIGHT = 64, 14


@dataclass(frozen=True)
class Scale:
    """A linear map from values ``0..top`` to pixels ``start..end``, with round ticks."""

    top: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        """The pixel of ``value``, as SVG writes it."""
        share = min(max(value / self.top, 0.0), 1.0) if self.top else 0.0
        return f"{self.start + share * (self.end - self.start):.1f}"

    def ticks(self, count: int) -> list[float]:
        """About ``count`` round values from 0 to ``top``: steps of 1, 2 or 5 x 10^n."""
        if self.top <= 0:
            return [0.0]
        raw = self.top / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw)
        return [step * i for i in range(int(self.top / step + 1e-9) + 1)]


def svg(height: float, title: str, *parts: Markup) -> Markup:
    """A drawing :data:`WIDTH` by ``height``, whose width follows its container."""
    return Markup(
        '<svg viewBox="0 0 {w} {h:.0f}" role="img" aria-label="{title}">{body}</svg>'
    ).format(w=WIDTH, h=height, title=title, body=Markup("").join(parts))


def text(x: float | str, y: float | str, text: str, css: str = "", anchor: str = "start") -> Markup:
    """A text whose baseline is at ``y``."""
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, css, anchor, text
    )


def line(x1: float | str, y1: float | str, x2: float | str, y2: float | str, css: str) -> Markup:
    """A straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(x1, y1, x2, y2, css)


def x_axis(scale: Scale, unit: Unit | None, top: float, bottom: float) -> Markup:
    """Vertical grid lines with their labels under ``bottom``."""
    marks = []
    for tick in scale.ticks(5):
        x = scale(tick)
        label = f"{tick:,.0f}" if unit is None else show_round(tick, unit)
        marks += [line(x, top, x, bottom, "grid"), text(x, bottom + 15, label, "tick", "middle")]
    return Markup("").join(marks)


def y_axis(scale: Scale, unit: Unit) -> Markup:
    """Horizontal grid lines with their labels to the left."""
    marks = []
    for tick in scale.ticks(5):
        y = scale(tick)
        marks.append(line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        marks.append(text(LEFT - 8, float(y) + 4, show_round(tick, unit), "tick", "end"))
    return Markup("").join(marks)

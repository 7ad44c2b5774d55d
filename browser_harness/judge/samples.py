"""What a sampled figure is made of."""

from __future__ import annotations

from dataclasses import dataclass

from browser_harness.judge.statistics import per_second


@dataclass(frozen=True)
class Samples:
    """What a figure is made of.

    Attributes:
        visits: milliseconds by fresh page, warm-up left out.
        count: how many things each sample is the time of, and the figure is things per
            second; ``None`` where the figure is the time itself.
    """

    visits: tuple[tuple[float, ...], ...]
    count: float | None = None

    def figure(self, ms: float) -> float | None:
        """The figure that ``ms`` milliseconds mean."""
        return ms if self.count is None else per_second(self.count, ms)

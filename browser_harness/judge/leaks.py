"""Does a page that loads and releases a model again and again hold more each time?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import stdtrit

from browser_harness.judge.intervals import CONFIDENCE
from manifests.report import Interval
from manifests.sweeps import LeakSweep

#: What is watched, by its field: its name, and growth per cycle in bytes below which nothing
#: is told.  Buffers and WASM's heap are counted exactly; collectors and allocators keep some.
WATCHED: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "gpu_buffers": ("GPU buffers", 0),
        "wasm_heap": ("WASM heap", 0),
        "js_heap": ("JS heap", 100_000),
        "renderer_pss": ("renderer PSS", 1_000_000),
        "gpu_process_pss": ("GPU process PSS", 1_000_000),
    }
)


@dataclass(frozen=True)
class Growth:
    """Bytes more per cycle, and their confidence interval; ``leaks`` tells whether it counts."""

    name: str
    per_cycle: float
    interval: Interval
    leaks: bool


def growths(sweep: LeakSweep) -> tuple[Growth, ...]:
    """The growth of everything that was seen in at least four cycles after the warm-up.

    The slope is that of least squares over the cycles, its interval Student's t.  It is a
    leak when the whole interval is above 0 and the slope above what :data:`WATCHED` allows.
    """
    found = []
    for field, (name, allowed) in WATCHED.items():
        seen = [getattr(cycle, field) for cycle in sweep.cycles[sweep.warmup :]]
        held = np.asarray([each for each in seen if each is not None], dtype=np.float64)
        if len(held) < 4:
            continue
        at = np.arange(len(held)) - (len(held) - 1) / 2
        spread = float(at @ at)
        slope = float(at @ held) / spread
        rest = held - held.mean() - slope * at
        freedom = len(held) - 2
        error = math.sqrt(float(rest @ rest) / freedom / spread)
        reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
        found.append(
            Growth(
                name=name,
                per_cycle=slope,
                interval=Interval(low=slope - reach, high=slope + reach),
                leaks=slope - reach > 0 and slope > allowed,
            )
        )
    return tuple(found)

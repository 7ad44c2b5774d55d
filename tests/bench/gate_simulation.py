"""The gate on made-up noise: what its statistics promise where the truth is known.

``python -m tests.bench.gate_simulation REPORT`` takes the tokens of a real report as the noise
within a page, in their order, so that neighbours stay alike.  Around them it draws what one
report cannot show: pages that differ by 2 or 3 %, half of which they share with the page
before, one page in twenty that something disturbs, and a machine that is another 0 or 2 %
off in each report.  Every pair goes through the real gate.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from browser_harness.judge import judge
from manifests.report import DecodeRun, Report
from tests.bench.gate_power import BUDGET, TARGET

#: How much of a page's deviation the next page shares.
MEMORY = 0.5
DISTURBED = 0.05


def residuals(report: Report) -> list[NDArray[np.float64]]:
    """Each run's tokens over their median, in order."""
    runs = [np.asarray(run.ms[run.warmup :]) for run in report.targets[TARGET].decode]
    return [run / np.median(run) for run in runs]


def simulated(
    like: Report,
    noise: list[NDArray[np.float64]],
    random: np.random.Generator,
    *,
    pages: int,
    spread: float,
    drift: float,
    slowdown: float,
) -> Report:
    """A report of ``pages`` pages; ``spread`` and ``drift`` are standard deviations."""
    base = 30.0 * (1 + slowdown) * np.exp(random.normal(0, drift))
    deviation, runs = random.normal(0, spread), []
    for page in range(pages):
        fresh = random.normal(0, spread) * np.sqrt(1 - MEMORY**2)
        deviation = deviation if page == 0 else MEMORY * deviation + fresh
        disturbed = 1 + (random.random() < DISTURBED) * random.uniform(0.1, 0.5)
        shape = noise[random.integers(len(noise))]
        ms = base * np.exp(deviation) * disturbed * np.roll(shape, random.integers(len(shape)))
        runs.append(DecodeRun(prompt_tokens=16, visit=page, warmup=0, ms=tuple(ms)))
    target = like.targets[TARGET].model_copy(update={"decode": tuple(runs)})
    return like.model_copy(update={"targets": {TARGET: target}})


@click.command()
@click.argument("report", type=click.Path(path_type=Path))
@click.option("--pairs", default=400, show_default=True)
def main(report: Path, pairs: int) -> None:
    """Print a Markdown table of verdicts."""
    like = Report.load(report)
    noise = residuals(like)
    random = np.random.default_rng(0)
    click.echo(
        "| pages | page spread | drift between reports | unchanged: regressed | improved | same "
        "| 10 % slower: regressed |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for pages in (4, 8, 16):
        for spread, drift in ((0.02, 0.0), (0.03, 0.02)):
            counts: dict[tuple[float, str], int] = {}
            for slowdown in (0.0, 0.1):
                for _ in range(pairs):
                    old, new = (
                        simulated(
                            like,
                            noise,
                            random,
                            pages=pages,
                            spread=spread,
                            drift=drift,
                            slowdown=each,
                        )
                        for each in (0.0, slowdown)
                    )
                    (check,) = judge(new, BUDGET, old).checks
                    assert check.comparison is not None
                    key = (slowdown, check.comparison.change)
                    counts[key] = counts.get(key, 0) + 1
            shown = [(0.0, "regressed"), (0.0, "improved"), (0.0, "same"), (0.1, "regressed")]
            cells = " | ".join(f"{counts.get(key, 0) / pairs:.1%}" for key in shown)
            click.echo(f"| {pages} | {spread:.0%} | {drift:.0%} | {cells} |")


if __name__ == "__main__":
    sys.exit(main())

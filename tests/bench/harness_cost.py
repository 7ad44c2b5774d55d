"""What being measured costs: decode speed under the harness against the bare runtime loop.

``python -m tests.bench.harness_cost BUNDLE`` decodes the same tokens of a CPU target in fresh
pages of one browser: under the harness (its page with the hooks on memory and GPU, and the
watch that looks at the processes and asks the page a few times a second, just as ``tabwright
measure`` does it), and in a page that loads the bundle's runtime and does nothing else.  The
two take turns as A B B A.  Ratios are taken within a pair, so that a slow minute is slow for
both; the interval of their median is a bias-corrected bootstrap's (``scipy.stats.bootstrap``).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from scipy.stats import bootstrap

from browser_harness.launch import Session, driver, launch
from browser_harness.loads import Bench, leave, load
from browser_harness.machine import describe_machine
from browser_harness.plan import PAGE, PLANS
from browser_harness.prompts import Prompts
from browser_harness.serve import StaticServer
from browser_harness.speed import measure_decode
from browser_harness.watch import watching
from manifests.bundle import read_manifest

BARE = Path(__file__).parent / "bare_page"
PLAN = PLANS["full"]
SECONDS = 300.0
#: Tokens/s under the harness over those without: the aim.
AIM = 0.98

Side = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Case:
    """What is decoded; ``worker`` is whether the bare page runs it in one, as pages do unasked."""

    target: str
    threads: int
    tokens: int
    worker: bool


def speed(ms: list[float]) -> float:
    """Tokens per second at the median; the first tokens warm up, as in a report."""
    return 1000 / statistics.median(ms[PLAN.decode_warmup :])


def sides(session: Session, site: StaticServer, case: Case) -> tuple[Side, Side]:
    """Decode under the harness, and bare: each gives tokens per second."""
    prompt = tuple(range(5, 5 + PLAN.first_prompt))

    async def under_the_harness() -> float:
        async with watching(session.profile) as watch:
            bench = Bench(
                site=site,
                target=case.target,
                threads=case.threads,
                plan=PLAN,
                adapter="none",
                session=session,
                watch=watch,
            )
            loaded = await load(bench, "warm load", Prompts(first=prompt), 1)
            run = await measure_decode(loaded.page, prompt, case.tokens, PLAN, visit=0)
            await leave(bench, loaded)
        return speed(list(run.ms))

    async def bare() -> float:
        tab = await session.new_tab()
        await tab.open(f"{site.url}/bare/index.html", "bare", seconds=SECONDS)
        asked = (case.target, case.threads, prompt, 1 + case.tokens, case.worker)
        answer = await tab.call("bare", "decode", *asked, seconds=SECONDS, doing="decoding")
        await tab.close(seconds=SECONDS)
        if answer["threads"] != case.threads:
            raise click.ClickException(f"{answer['threads']} threads, not {case.threads}")
        at_ms = answer["at_ms"]
        return speed([after - before for before, after in pairwise(at_ms)])

    return under_the_harness, bare


async def take_turns(bundle: Path, case: Case, pairs: int) -> list[tuple[float, float]]:
    """Tokens per second under the harness and bare, pair by pair; the first pair is dropped."""
    found = []
    with StaticServer({"/bundle": bundle, "/harness": PAGE, "/bare": BARE}) as site:
        async with driver() as playwright, launch(playwright, adapter="none") as session:
            harness, bare = sides(session, site, case)
            for index in range(1 + pairs):
                if index % 2 == 0:
                    measured, alone = await harness(), await bare()
                else:
                    alone, measured = await bare(), await harness()
                click.echo(f"  {measured:.2f} measured, {alone:.2f} bare (tok/s)", err=True)
                found.append((measured, alone))
    return found[1:]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--target", default="wasm-q4", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--tokens", default=PLAN.decode_tokens, show_default=True)
@click.option("--pairs", default=20, show_default=True)
@click.option("--worker", is_flag=True, help="The bare page runs the model in a worker.")
@click.option("--samples", type=click.Path(path_type=Path), help="write every pair as JSON")
def main(
    bundle: Path,
    target: str,
    threads: int,
    tokens: int,
    pairs: int,
    *,
    worker: bool,
    samples: Path | None,
) -> None:
    """Compare decode speed under the harness with the bare loop's."""
    name = read_manifest(bundle).model.name
    case = Case(target, threads, tokens, worker)
    found = asyncio.run(take_turns(bundle, case, pairs))
    ratios = np.array([measured / alone for measured, alone in found])
    interval = bootstrap((ratios,), np.median, rng=np.random.default_rng(0)).confidence_interval
    machine = describe_machine()
    if samples:
        samples.parent.mkdir(parents=True, exist_ok=True)
        samples.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    click.echo(
        f"{name}, {target}, {threads} threads, {pairs} pairs of {tokens} tokens, {machine.cpu}, "
        f"{machine.cores} cores: {np.median(ratios):.3f} of the bare loop's tokens/s"
        f"{', in a worker,' if worker else ''} under the harness "
        f"(95 % interval {interval.low:.3f} to {interval.high:.3f}; "
        f"at least {AIM} asked for)"
    )
    sys.exit(bool(np.median(ratios) < AIM))


if __name__ == "__main__":
    sys.exit(main())

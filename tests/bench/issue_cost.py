"""What issuing a token costs the page's thread: the loop that stays on the GPU, and the plain one.

``python -m tests.bench.issue_cost`` prints a Markdown table.  The figure is CPU time of the
page's main thread (Chromium's ``TaskDuration`` in thread ticks), in which the runtime and
ONNX Runtime run here; the GPU's time, and on SwiftShader that is another process's CPU time,
is no part of it.  Two texts that differ in length are timed, so that prompt and start cancel.
A round visits either loop once, in turned order; ratios are taken within a round.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from playwright.async_api import Browser, async_playwright
from scipy.stats import t as student

from browser_harness.browsers import find_browser
from browser_harness.flags import AdapterKind, flags_for
from browser_harness.machine import describe_machine
from browser_harness.plan import PAGE
from browser_harness.serve import StaticServer
from exporter.pipeline import export
from targets import find_targets
from tests.checkpoints import VARIANTS, write_checkpoint

LOOPS = ("resident", "plain")
#: The issue: at most so many milliseconds a token.
WANTED_MS = 3.0
WARM_UP_TOKENS = 4
SECONDS = 600.0

_LOAD = """async (loop) => {
  const { load } = await import("/runtime/tabwright.js");
  globalThis.model = await load("/manifest.json", {
    target: "webgpu-q4", threads: 1, worker: false, store: "none", loop,
  });
  return [model.info.loop, model.info.adapter];
}"""
_GENERATE = """async (maxNewTokens) => {
  for await (const _ of model.generate([5], { maxNewTokens, stopTokens: [] }));
}"""


async def _visit(browser: Browser, url: str, loop: str, tokens: int) -> tuple[float, str]:
    """Milliseconds of the main thread per token, and the adapter's name."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{url}/runtime/chat.css")
    made, adapter = await page.evaluate(_LOAD, loop)
    if made != loop:
        raise click.ClickException(f"asked for the {loop} loop, got the {made} one")
    # The second text of a page still costs more than those after it.
    for _ in range(2):
        await page.evaluate(_GENERATE, WARM_UP_TOKENS)
    session = await context.new_cdp_session(page)
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})

    async def busy() -> float:
        metrics = (await session.send("Performance.getMetrics"))["metrics"]
        return float(next(item["value"] for item in metrics if item["name"] == "TaskDuration"))

    spent = []
    for count in (WARM_UP_TOKENS, WARM_UP_TOKENS + tokens):
        before = await busy()
        await page.evaluate(_GENERATE, count)
        spent.append(await busy() - before)
    await context.close()
    name = adapter["description"] or adapter["device"] or adapter["architecture"]
    return (spent[1] - spent[0]) * 1000 / tokens, name


async def _rounds(
    url: str, adapter: AdapterKind, rounds: int, tokens: int
) -> tuple[dict[str, list[float]], str]:
    costs: dict[str, list[float]] = {loop: [] for loop in LOOPS}
    async with async_playwright() as playwright:
        found = find_browser(None, Path(playwright.chromium.executable_path))
        browser = await playwright.chromium.launch(
            executable_path=found.executable, args=list(flags_for(adapter)), chromium_sandbox=False
        )
        try:
            for index in range(rounds):
                for loop in LOOPS if index % 2 == 0 else reversed(LOOPS):
                    visit = _visit(browser, url, loop, tokens)
                    cost, name = await asyncio.wait_for(visit, SECONDS)
                    costs[loop].append(cost)
                    click.echo(f"  {loop}: {cost:.2f} ms a token", err=True)
        finally:
            await browser.close()
    return costs, name


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """The geometric mean of the rounds' ratios, and its 95 % interval (Student's t)."""
    logs = np.log(np.array(ours) / np.array(theirs))
    reach = 0.0
    if len(logs) > 1:
        error = logs.std(ddof=1) / np.sqrt(len(logs))
        reach = float(student.ppf(0.975, len(logs) - 1)) * error
    mean = logs.mean()
    return float(np.exp(mean)), float(np.exp(mean - reach)), float(np.exp(mean + reach))


def _row(loop: str, costs: list[float]) -> str:
    median = statistics.median(costs)
    verdict = "yes" if median <= WANTED_MS else "no"
    return f"| {loop} | {median:.2f} ({min(costs):.2f}-{max(costs):.2f}) | {verdict} |"


@click.command()
@click.option("--layers", default=30, show_default=True)
@click.option("--rounds", default=4, show_default=True)
@click.option("--tokens", default=24, show_default=True)
@click.option("--adapter", type=click.Choice(["software", "hardware"]), default="software")
@click.option("--samples", type=click.Path(path_type=Path), help="write every sample as JSON")
def main(layers: int, rounds: int, tokens: int, adapter: AdapterKind, samples: Path | None) -> None:
    """Compare what a token costs the page's thread in either loop."""
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        folder = Path(scratch)
        variant = replace(VARIANTS["bf16"], layers=layers)
        write_checkpoint(variant, folder / "checkpoint")
        bundle = folder / "bundle"
        export(
            folder / "checkpoint",
            find_targets(("webgpu-q4",)),
            bundle,
            runtime=PAGE.parent / "bundle",
        )
        with StaticServer({"/": bundle}) as server:
            costs, name = asyncio.run(_rounds(server.url, adapter, rounds, tokens))
    machine = describe_machine()
    mean, low, high = ratio(costs["resident"], costs["plain"])
    click.echo(
        f"{layers} layers, {tokens} tokens a visit, {rounds} rounds; {name}; {machine.cpu}, "
        f"{machine.cores} cores; ms of the main thread a token, median (range).\n\n"
        f"| loop | ms a token | at most {WANTED_MS:g} |\n| --- | --- | --- |"
    )
    for loop in LOOPS:
        click.echo(_row(loop, costs[loop]))
    click.echo(f"\nresident / plain: **{mean:.3f}** ({low:.3f}-{high:.3f})")
    if samples:
        facts: dict[str, Any] = {"layers": layers, "tokens": tokens, "adapter": name, "ms": costs}
        samples.parent.mkdir(parents=True, exist_ok=True)
        samples.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

"""wasm-q4 against wllama: the same model, browser and thread count, in one interleaved run.

``python -m tests.bench.decode`` prints a Markdown table.  Each round opens a fresh page
for either side, the order turning round every time (A B, B A, ...), throws away a warm-up
generation and times one.  Ratios are taken within a round, so that a machine which is slow
for a minute is slow for both.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from browser_harness.client import OBJECT
from browser_harness.launch import Session, driver, launch
from browser_harness.machine import describe_machine
from browser_harness.plan import PAGE
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab
from exporter.compress.demo import SMOLLM2, demo_checkpoint, download_gguf
from exporter.pipeline import export
from targets import TARGETS

PEERS = Path(__file__).parent / "peers"
RUNTIME = PAGE.parent / "bundle"
PROMPT = (
    "Once upon a time, in a small village between the mountains and the sea, there lived an old "
    "clockmaker who had never told anyone the truth about his clocks. One winter evening"
)
WARMUP_TOKENS = 8
SECONDS = 300.0


@dataclass
class Side:
    """One of the two: how it generates, and what it took."""

    name: str
    run: Callable[[Session, str, int, int], Awaitable[tuple[float, float]]]
    decode: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)


async def _ours(session: Session, url: str, threads: int, tokens: int) -> tuple[float, float]:
    tab = await session.new_tab()
    await tab.open(f"{url}/harness/index.html", OBJECT, seconds=SECONDS)
    request = {
        "manifest_url": f"{url}/bundle/manifest.json",
        "target": "wasm-q4",
        "threads": threads,
        "device_features": "needed",
    }
    loaded = await _call(tab, OBJECT, "load", request)
    if loaded["threads"] != threads:
        raise click.ClickException(f"asked for {threads} threads, got {loaded['threads']}")
    [ids] = await _call(tab, OBJECT, "tokenize", [PROMPT])
    await _call(tab, OBJECT, "generate", ids, WARMUP_TOKENS, True)
    result = await _call(tab, OBJECT, "generate", ids, tokens, True)
    await tab.close(seconds=SECONDS)
    return _speeds(result["at_ms"], len(ids))


async def _wllama(session: Session, url: str, threads: int, tokens: int) -> tuple[float, float]:
    tab = await session.new_tab()
    await tab.open(f"{url}/peers/wllama.html", "peer", seconds=SECONDS)
    loaded = await _call(tab, "peer", "load", threads)
    if loaded["threads"] != threads:
        raise click.ClickException(f"wllama took {loaded['threads']} threads, not {threads}")
    await _call(tab, "peer", "generate", PROMPT, WARMUP_TOKENS)
    result = await _call(tab, "peer", "generate", PROMPT, tokens)
    await tab.close(seconds=SECONDS)
    own = result["own"]
    decode, prefill = _speeds(result["at_ms"], own["prompt_n"])
    # Its own clock leaves out the messages between its worker and the page: the better
    # of the two figures is taken, in its favour.
    return max(decode, own["predicted_per_second"]), max(prefill, own["prompt_per_second"])


async def _call(tab: Tab, name: str, method: str, *arguments: Any) -> Any:
    return await tab.call(name, method, *arguments, seconds=SECONDS, doing=method)


def _speeds(at_ms: list[float], prompt_tokens: int) -> tuple[float, float]:
    """Decode and prefill tokens per second."""
    decode = (len(at_ms) - 1) * 1000 / (at_ms[-1] - at_ms[0])
    return decode, prompt_tokens * 1000 / at_ms[0]


def bootstrap(values: list[float]) -> tuple[float, float]:
    """A 95 % interval of the median, from 10,000 resamples."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (10_000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


async def _rounds(
    server: StaticServer, threads: int, rounds: int, tokens: int
) -> tuple[Side, Side]:
    sides = (Side("tabwright wasm-q4", _ours), Side("wllama 3.8.1 Q4_1", _wllama))
    async with driver() as playwright, launch(playwright, adapter="none") as session:
        for index in range(rounds):
            for side in sides if index % 2 == 0 else reversed(sides):
                decode, prefill = await side.run(session, server.url, threads, tokens)
                side.decode.append(decode)
                side.prefill.append(prefill)
                click.echo(f"  {threads} threads, {side.name}: {decode:.1f} tok/s", err=True)
    return sides


def _row(threads: int, ours: list[float], theirs: list[float], what: str) -> str:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = bootstrap(ratios)
    return (
        f"| {threads} | {what} | {statistics.median(ours):.1f} "
        f"({min(ours):.1f}-{max(ours):.1f}) | {statistics.median(theirs):.1f} "
        f"({min(theirs):.1f}-{max(theirs):.1f}) | **{statistics.median(ratios):.2f}** "
        f"({low:.2f}-{high:.2f}) |"
    )


@click.command()
@click.option("--threads", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--rounds", default=6, show_default=True)
@click.option("--tokens", default=64, show_default=True)
@click.option("--samples", type=click.Path(path_type=Path), help="write every sample as JSON")
def main(threads: tuple[int, ...], rounds: int, tokens: int, samples: Path | None) -> None:
    """Compare decode and prefill speed with wllama."""
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        folder = Path(scratch)
        export(demo_checkpoint(), (TARGETS["wasm-q4"],), folder / "bundle", runtime=RUNTIME)
        (folder / "model").mkdir()
        download_gguf(folder).rename(folder / "model" / "model.gguf")
        folders = {
            "/bundle": folder / "bundle",
            "/harness": PAGE,
            "/model": folder / "model",
            "/peers": PEERS,
        }
        with StaticServer(folders) as server:
            results = {
                count: asyncio.run(_rounds(server, count, rounds, tokens)) for count in threads
            }
    machine = describe_machine()
    click.echo(
        f"{SMOLLM2.name} ({next(iter(SMOLLM2.packages))}), {rounds} rounds of {tokens} tokens, "
        f"{machine.cpu}, {machine.cores} cores; "
        "tokens/s, median (range); ratio with 95 % interval.\n\n"
        "| threads | | tabwright wasm-q4 | wllama 3.8.1 | ratio |\n| --- | --- | --- | --- | --- |"
    )
    for count, (ours, theirs) in results.items():
        click.echo(_row(count, ours.decode, theirs.decode, "decode"))
        click.echo(_row(count, ours.prefill, theirs.prefill, "prefill"))
    if samples:
        data = {
            count: {side.name: {"decode": side.decode, "prefill": side.prefill} for side in sides}
            for count, sides in results.items()
        }
        samples.parent.mkdir(parents=True, exist_ok=True)
        samples.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

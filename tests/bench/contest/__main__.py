"""Every way to run the same model in one interleaved run: ``python -m tests.bench.contest``.

Prints Markdown tables and writes every sample.  Each round visits every side once, the order
turning round every time (A B C, C B A, ...), each in a browser or a process of its own, which
stays open on a software adapter: a machine that is slow for a minute is slow for all, and ratios
are taken within a round.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from playwright.async_api import Playwright

from browser_harness.adapters import resolve_adapter
from browser_harness.flags import AdapterKind
from browser_harness.launch import driver, launch
from browser_harness.machine import describe_machine
from browser_harness.plan import PAGE
from browser_harness.serve import StaticServer
from exporter.reference.prompts import open_tokenizer, tokenise
from exporter.reference.suite import SUITE, Suite
from tests.bench.contest.models import Models, prepare
from tests.bench.contest.pages import Prompt
from tests.bench.contest.sides import EFFORTS, GPU_SIDES, NATIVE, Effort, Side, cpu_sides
from tests.bench.contest.table import (
    MARK,
    Result,
    decode_speed,
    ratios_table,
    results_table,
)
from tests.bench.contest.visits import (
    Facts,
    Texts,
    Visit,
    count,
    natively_counted,
    run_natively,
    taking_turns,
    visit,
)

PEERS = Path(__file__).parents[1] / "peers"
KEPT = Path("build/bench/peers")
CONTEXT = 1024
TEXT = (
    "Once upon a time, in a small village between the mountains and the sea, there lived an old "
    "clockmaker who had never told anyone the truth about his clocks. One winter evening"
)


@dataclass(frozen=True)
class Contest:
    """What all sides share."""

    playwright: Playwright
    site: StaticServer
    models: Models
    texts: Texts
    adapter: AdapterKind

    async def hold(self, sides: Sequence[Side], effort: Effort, rounds: int) -> list[Result]:
        """Count every side once, then time ``rounds`` rounds of all of them."""
        ids = tuple(open_tokenizer(self.models.checkpoint)(TEXT)["input_ids"])[: effort.prompt]
        prompt = Prompt(TEXT, ids)
        facts = [await self._count(side, prompt, effort) for side in sides]
        visits: list[list[Visit]] = [[] for _ in sides]
        async with AsyncExitStack() as stack:
            visit = await self._visitor(stack, sides, prompt, effort)
            for turn in range(rounds):
                order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
                for number in order:
                    side = sides[number]
                    made = await visit(side)
                    visits[number].append(made)
                    click.echo(
                        f"  round {turn + 1}, {side.name}, {side.threads} threads: "
                        f"{decode_speed(made):.3g} tok/s",
                        err=True,
                    )
        return [
            Result(name=side.name, threads=side.threads, facts=known, visits=tuple(made))
            for side, known, made in zip(sides, facts, visits, strict=True)
        ]

    async def _visitor(
        self, stack: AsyncExitStack, sides: Sequence[Side], prompt: Prompt, effort: Effort
    ) -> Callable[[Side], Awaitable[Visit]]:
        """What visits a side; those that are to be open together are, until ``stack`` closes."""
        if not effort.together:
            return partial(self._visit, prompt=prompt, effort=effort)
        turns = {}
        for side in sides:
            click.echo(f"  opening {side.name}", err=True)
            opened = taking_turns(self.playwright, self.site, side, prompt, effort, self.adapter)
            turns[side.name] = await stack.enter_async_context(opened)
        return lambda side: turns[side.name]()

    async def _visit(self, side: Side, prompt: Prompt, effort: Effort) -> Visit:
        if side.engine in NATIVE:
            made, _ = await asyncio.to_thread(
                run_natively, self.models.bundle, side, prompt, effort
            )
            return made
        adapter = self.adapter if side.device == "gpu" else "none"
        return await visit(self.playwright, self.site, side, prompt, effort, adapter)

    async def _count(self, side: Side, prompt: Prompt, effort: Effort) -> Facts:
        click.echo(f"  counting {side.name}, {side.threads} threads", err=True)
        if side.engine in NATIVE:
            bundle = self.models.bundle
            _, peak = await asyncio.to_thread(run_natively, bundle, side, prompt, effort)
            return await asyncio.to_thread(natively_counted, bundle, side, peak, self.texts)
        adapter = self.adapter if side.device == "gpu" else "none"
        return await count(self.playwright, self.site, side, prompt, effort, adapter, self.texts)


async def _run(models: Models, threads: Sequence[int], rounds: int, *, gpu: bool) -> Any:
    folders = {
        "/bundle": models.bundle,
        "/q8": models.q8,
        "/gguf": models.gguf,
        "/harness": PAGE,
        "/peers": PEERS,
    }
    scored = tokenise(models.checkpoint, Suite.load(SUITE), CONTEXT).scored
    texts = [text.ids for text in scored]
    found: dict[str, Any] = {}
    with StaticServer(folders) as site:
        async with driver() as playwright:
            adapter: AdapterKind = "none"
            if gpu:
                adapter = await resolve_adapter(playwright, "auto", executable=None)
            contest = Contest(playwright, site, models, texts, adapter)
            async with launch(playwright, adapter="none") as session:
                browser = session.browser
            groups = {f"cpu, {count} threads": (cpu_sides(count), "full") for count in threads}
            if gpu:
                effort = "software" if adapter == "software" else "full"
                groups[f"gpu, {adapter} adapter"] = (GPU_SIDES, effort)
            for name, (sides, effort) in groups.items():
                found[name] = (
                    sides,
                    EFFORTS[effort],
                    await contest.hold(sides, EFFORTS[effort], rounds),
                )
    return browser, found


@click.command()
@click.option("--threads", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--rounds", default=6, show_default=True)
@click.option("--cpu/--no-cpu", default=True, show_default=True)
@click.option("--gpu/--no-gpu", default=True, show_default=True)
@click.option("--samples", type=click.Path(path_type=Path), help="write every sample as JSON")
def main(
    *, threads: tuple[int, ...], rounds: int, cpu: bool, gpu: bool, samples: Path | None
) -> None:
    """Compare every runtime on SmolLM2-135M-Instruct."""
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        models = prepare(KEPT, Path(scratch))
        browser, found = asyncio.run(_run(models, threads if cpu else (), rounds, gpu=gpu))
    machine = describe_machine()
    peers = json.loads((PEERS / "package.json").read_text("utf-8"))["dependencies"]
    versions = {
        "transformers.js": peers["@huggingface/transformers"],
        "wllama": peers["@wllama/wllama"],
        "onnxruntime": version("onnxruntime"),
        "onnxruntime-genai": version("onnxruntime-genai"),
    }
    click.echo(
        f"SmolLM2-135M-Instruct, {browser.name} {browser.version}, {machine.cpu}, "
        f"{machine.cores} cores; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + f". {MARK}: a perplexity more than 1 % above ours."
    )
    for name, (sides, effort, results) in found.items():
        click.echo(f"\n### {name}: {len(results[0].visits)} rounds of {effort.many} tokens\n")
        click.echo("\n".join(results_table(sides, results, effort.prompt)))
        click.echo("\nOurs over theirs, above 1 where ours is faster:\n")
        click.echo("\n".join(ratios_table(results, [side.name for side in sides])))
        for side in sides:
            if side.no_perplexity:
                click.echo(f"\n{side.name}, perplexity n/a: {side.no_perplexity}.")
    if samples:
        document = {
            "machine": machine.model_dump(),
            "browser": browser.model_dump(),
            "versions": versions,
            "groups": {
                name: [result.model_dump() for result in results]
                for name, (_, _, results) in found.items()
            },
        }
        samples.parent.mkdir(parents=True, exist_ok=True)
        samples.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()

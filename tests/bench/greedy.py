"""Greedy tokens of the browser against PyTorch in float32, on the same weights.

``python -m tests.bench.greedy`` prints a Markdown table.  The browser continues every prompt
by itself; PyTorch, with the bundle's weights, is then fed the same tokens and has to choose
each of them.  Where it chooses another, that is a near-tie if the browser's token is its
second choice, and the two are closer than the logits of browser and PyTorch were measured to
be apart; anything else is a divergence, and the exit status is 1.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import click
import numpy as np
import torch
from numpy.typing import NDArray

from browser_harness.client import MeasurePage
from browser_harness.flags import AdapterKind
from browser_harness.machine import describe_machine
from browser_harness.plan import PAGE
from exporter.compress.calibration import PACKAGE_SET
from exporter.compress.demo import demo_checkpoint
from exporter.pipeline import export
from exporter.reference.model import load_bundle
from exporter.reference.prompts import open_tokenizer
from manifests.bundle import MANIFEST_NAME, read_manifest
from manifests.page import LoadRequest
from targets import find_targets
from tests.families import Tiny, write_family
from tests.harness_page import harness_tab

RUNTIME = PAGE.parent / "bundle"
LANGUAGES = ("en", "ar")
PROMPT_TOKENS = 24
#: Of how many continuations the logits are compared, to know how far apart they are.
COMPARED = 4
ROWS = 16
SECONDS = 600.0
TINY = Tiny("llama", {"tie_word_embeddings": False, "initializer_range": 0.2})

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One way to make tokens: a bundle's target as the page is asked to run it."""

    target: str
    model: Literal["demo", "tiny"]
    prompts: int
    tokens: int
    adapter: AdapterKind = "none"
    threads: int = 1
    loop: Literal["resident", "plain"] = "resident"


#: SwiftShader takes 7 s for a token of the demo's model: a tiny one is continued there.
CASES: MappingProxyType[str, Case] = MappingProxyType(
    {
        "wasm-1": Case("wasm-q4", "demo", 64, 64),
        "wasm-2": Case("wasm-q4", "demo", 64, 64, threads=2),
        "webgpu-captured": Case("webgpu-q4", "tiny", 64, 64, adapter="software"),
        "webgpu-plain": Case("webgpu-q4", "tiny", 64, 64, adapter="software", loop="plain"),
    }
)


@dataclass(frozen=True)
class NearTie:
    """A token that PyTorch would have chosen otherwise, and by how little."""

    prompt: int
    position: int
    gap: float


@dataclass(frozen=True)
class Outcome:
    """What became of a case; ``apart`` is the largest difference of a logit."""

    tokens: int
    apart: float
    near_ties: tuple[NearTie, ...]
    diverged: tuple[NearTie, ...]
    seconds: float


@dataclass(frozen=True)
class Said:
    """What the browser made: continuations, and the logits of some of them."""

    continued: tuple[Ids, ...]
    logits: tuple[NDArray[np.float32], ...]
    seconds: float


def prompts_of(checkpoint: Path, count: int) -> tuple[Ids, ...]:
    """``count`` beginnings of texts of the package's own set, the languages taking turns."""
    tokenizer: Any = open_tokenizer(checkpoint)
    rows = [json.loads(line) for line in PACKAGE_SET.read_text("utf-8").splitlines()]
    texts = [[row["text"] for row in rows if row["language"] == name] for name in LANGUAGES]
    chosen = [text for pair in zip(*texts, strict=False) for text in pair][:count]
    return tuple(tuple(tokenizer(text)["input_ids"][:PROMPT_TOKENS]) for text in chosen)


async def ask_browser(bundle: Path, case: Case, prompts: Sequence[Ids]) -> Said:
    """Continue every prompt in one page."""
    async with harness_tab({"/bundle": bundle}, case.adapter) as (tab, site):
        page = MeasurePage(tab, call_seconds=SECONDS)
        request = LoadRequest(
            manifest_url=f"{site}/bundle/{MANIFEST_NAME}",
            target=case.target,
            threads=case.threads,
            loop=case.loop,
        )
        loaded = await page.load(request, seconds=SECONDS)
        wanted = "plain" if case.target.startswith("wasm") else case.loop
        if (loaded.loop, loaded.threads) != (wanted, case.threads):
            raise click.ClickException(f"not as asked: {loaded.loop}, {loaded.threads} threads")
        started, continued = time.monotonic(), []
        for number, prompt in enumerate(prompts):
            continued.append((await page.generate(prompt, case.tokens)).tokens)
            click.echo(f"  {case.target}: {number + 1} of {len(prompts)}", err=True)
        seconds = time.monotonic() - started
        logits = []
        for prompt, tokens in list(zip(prompts, continued, strict=True))[:COMPARED]:
            blocks = [block.logits async for block in page.score((*prompt, *tokens), ROWS)]
            logits.append(np.concatenate(blocks))
    return Said(tuple(continued), tuple(logits), seconds)


@torch.inference_mode()
def judge(model: Any, prompts: Sequence[Ids], said: Said) -> Outcome:
    """Feed PyTorch what the browser said, and see where it would have said something else."""
    apart, differing = 0.0, []
    for number, (prompt, tokens) in enumerate(zip(prompts, said.continued, strict=True)):
        rows = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].float().numpy()
        if number < len(said.logits):
            apart = max(apart, float(np.abs(rows - said.logits[number]).max()))
        for position, token in enumerate(tokens):
            row = rows[len(prompt) - 1 + position]
            if int(row.argmax()) != token:
                runner_up = int(np.argsort(row)[-2]) == token
                gap = float(row.max() - row[token]) if runner_up else float("inf")
                differing.append(NearTie(number, position, gap))
    return Outcome(
        tokens=sum(len(tokens) for tokens in said.continued),
        apart=apart,
        near_ties=tuple(each for each in differing if each.gap < apart),
        diverged=tuple(each for each in differing if each.gap >= apart),
        seconds=said.seconds,
    )


def run(name: str, folder: Path) -> Outcome:
    """Run the case called ``name``, with its bundle in ``folder``."""
    case = CASES[name]
    checkpoint = folder / case.model
    if case.model == "demo":
        checkpoint = demo_checkpoint()
    elif not checkpoint.exists():
        write_family(TINY, checkpoint)
    bundle = folder / f"{case.model}-{case.target}"
    if not bundle.exists():
        export(checkpoint, find_targets([case.target]), bundle, runtime=RUNTIME)
    prompts = prompts_of(checkpoint, case.prompts)
    said = asyncio.run(ask_browser(bundle, case, prompts))
    weights = read_manifest(bundle).weights["q4"]
    return judge(load_bundle(checkpoint, bundle, weights, "cpu"), prompts, said)


def _row(name: str, outcome: Outcome) -> str:
    case = CASES[name]
    how = f"{case.threads} threads" if case.target.startswith("wasm") else case.loop
    told = [f"{each.gap:.1e}" for each in outcome.near_ties]
    return (
        f"| {case.target}, {how} | {case.model} | {case.prompts} x {case.tokens} "
        f"| {outcome.tokens - len(outcome.near_ties) - len(outcome.diverged)} of {outcome.tokens} "
        f"| {len(told)}{': ' if told else ''}{', '.join(told)} | {len(outcome.diverged)} "
        f"| {outcome.apart:.1e} |"
    )


@click.command()
@click.option("--case", "names", multiple=True, type=click.Choice(list(CASES)), default=list(CASES))
def main(names: tuple[str, ...]) -> None:
    """Compare greedy tokens with PyTorch's."""
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        outcomes = {name: run(name, Path(scratch)) for name in names}
    machine = describe_machine()
    click.echo(
        f"Prompts of {PROMPT_TOKENS} tokens, half of them English and half Arabic, "
        f"{machine.cpu}, {machine.cores} cores.\n\n"
        "| | model | prompts x tokens | as PyTorch | near-ties (gap in logits) | diverged "
        "| largest logit difference |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, outcome in outcomes.items():
        click.echo(_row(name, outcome))
    if any(outcome.diverged for outcome in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()

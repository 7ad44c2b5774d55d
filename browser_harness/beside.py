"""Two bundles, or two targets, in turns: A B B A.

Two reports that were measured one after the other also differ by what the machine did in
between.  Here a fresh page of each side is open at the same time, each in a browser of its
own that was started for this, and their runs alternate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from browser_harness.adapters import AdapterMissing
from browser_harness.judge.figures import precision
from browser_harness.judge.paired import time_ratio
from browser_harness.launch import Session, driver, launch
from browser_harness.loads import Served, serve
from browser_harness.measure import require_target, settle
from browser_harness.plan import Options, Plan
from browser_harness.prompts import Prompts
from browser_harness.speed import decode_run
from manifests.bundle import read_manifest
from manifests.errors import TabwrightError
from manifests.progress import Progress
from manifests.report import Beside, DecodeRun, Failure, PagePair, Report

#: Pairs of the A/A run, and the least that are compared: each side has been in each browser,
#: and has begun there, equally often.
NOISE_PAIRS = 4
LEAST_PAIRS = 8
#: Runs of a pair: old new new old old new new old, or the other way round.  Many of half the
#: length: what disturbs a tenth of a second, or two seconds, then falls on both sides.
_TURNS = (0, 1, 1, 0)
#: The first of them only warm up: a page's code is compiled better while it runs, and a small
#: model halves its time within a hundred tokens.
_WARM_TURNS = 4
#: At least so many, and on until so long after the first: where a token takes 3 ms, a run is
#: over before the machine's mood changes, and four of a side tell nothing.
_LEAST_TURNS = 12
PAIR_SECONDS = 4.0


@dataclass(frozen=True)
class Side:
    """What one of the two browsers runs.

    Attributes:
        bundle: folder of the bundle.
        target: one of its targets.
        page: folder of the measuring page.
    """

    bundle: Path
    target: str
    page: Path


#: Whether these pairs are not enough.
GoesOn = Callable[[Sequence[PagePair]], bool]


def require_beside(bundle: Path, other: Path, targets: Sequence[str], target: str | None) -> None:
    """Refuse early what :func:`add_beside` would refuse after a long measurement.

    Args:
        bundle: the new bundle.
        other: the old one.
        targets: of the new one that are measured; all where none is named.
        target: the old one's target; by default that of the same name.

    Raises:
        TargetAbsent: ``other`` has no such target.
        NotFound, BadDocument, SealBroken: one of them cannot be read.
    """
    manifest = read_manifest(other)
    for name in targets or read_manifest(bundle).targets:
        require_target(other, manifest, target or name)


def add_beside(
    report: Report,
    bundle: Path,
    other: Path,
    target: str | None,
    options: Options,
    progress: Progress,
    *,
    keep: Callable[[Report], None] = lambda _: None,
) -> Report:
    """``report`` of ``bundle`` with each of its targets measured in turns with ``other``'s.

    A target on a software adapter is left out, which its notes tell; of one that fails here
    the rest of its report is kept, and the failure with it.

    Args:
        report: what was measured of ``bundle``.
        bundle: the new bundle.
        other: the old one, which may be the same.
        target: the old one's target; by default that of the same name.
        options: as for measuring.
        progress: told of each phase.
        keep: gets what there is after each target.

    Raises:
        NotFound, BadDocument, SealBroken: ``other`` cannot be read.
    """
    manifest = read_manifest(other)
    for name, measured in report.targets.items():
        old = Side(other, target or name, options.page)
        changes: dict[str, object] = {}
        if measured.software_adapter or measured.failure is not None:
            changes["notes"] = (*measured.notes, "not measured in turns: its speed is not judged")
        else:
            try:
                pairs = measure_beside(old, Side(bundle, name, options.page), options, progress)
            except TabwrightError as error:
                changes["beside_failure"] = Failure.of(error)
            else:
                noise, compared = pairs
                changes["beside"] = Beside(
                    bundle=manifest.model.name,
                    seal=manifest.seal,
                    target=old.target,
                    noise=noise,
                    pairs=compared,
                )
        targets = {**report.targets, name: measured.model_copy(update=changes)}
        report = report.model_copy(update={"targets": targets})
        keep(report)
    return report


def measure_beside(
    old: Side, new: Side, options: Options, progress: Progress
) -> tuple[tuple[PagePair, ...], tuple[PagePair, ...]]:
    """The A/A run of ``old``, then ``old`` and ``new`` in turns.

    Raises:
        TabwrightError: whatever starting a browser, loading or generating refuse.
    """
    noise = take_turns(old, old, options, lambda pairs: len(pairs) < NOISE_PAIRS, progress)
    return noise, compare(old, new, options, progress)


def compare(old: Side, new: Side, options: Options, progress: Progress) -> tuple[PagePair, ...]:
    """``old`` and ``new`` in turns, until the ratio is known.

    Pairs are added until it is known to the plan's precision, or twice the plan's time is up:
    every pair has two pages.

    Raises:
        TabwrightError: whatever starting a browser, loading or generating refuse.
    """
    plan = options.plans["full"]
    started = time.monotonic()

    def goes_on(pairs: Sequence[PagePair]) -> bool:
        if len(pairs) < LEAST_PAIRS:
            return True
        spent = time.monotonic() - started
        return spent < 2 * plan.sampling_seconds and precision(time_ratio(pairs)) > plan.precision

    return take_turns(old, new, options, goes_on, progress)


def take_turns(
    old: Side, new: Side, options: Options, goes_on: GoesOn, progress: Progress
) -> tuple[PagePair, ...]:
    """Pairs of fresh pages, in two browsers that are started for them, while ``goes_on``.

    Raises:
        TabwrightError: whatever starting a browser, loading or generating refuse.
    """
    return asyncio.run(_take_turns(old, new, options, goes_on, progress))


async def _take_turns(
    old: Side, new: Side, options: Options, goes_on: GoesOn, progress: Progress
) -> tuple[PagePair, ...]:
    plan = options.plans["full"]
    pairs: list[PagePair] = []
    phase = f"{new.target} in turns with {'itself' if new == old else old.bundle.name}"
    async with AsyncExitStack() as stack:
        playwright = await stack.enter_async_context(driver())
        manifests = [read_manifest(side.bundle) for side in (old, new)]
        entries = [
            manifest.targets[side.target]
            for manifest, side in zip(manifests, (old, new), strict=True)
        ]
        room = min(manifest.model.context_length for manifest in manifests) - plan.first_prompt - 1
        plan = replace(plan, decode_tokens=min(plan.decode_tokens // 2, room))
        on_gpu = [entry.execution_provider == "webgpu" for entry in entries]
        adapter = await settle(playwright, options, on_gpu=any(on_gpu))
        if adapter == "software":
            # An emulation of the one side against the other tells nothing of either.
            raise AdapterMissing("hardware")
        sides = [
            Served(
                site=stack.enter_context(serve(side.bundle, side.page)),
                target=side.target,
                threads=options.threads,
                plan=plan,
                adapter=adapter if needed else "none",
            )
            for side, needed in zip((old, new), on_gpu, strict=True)
        ]
        browsers = [
            await stack.enter_async_context(
                launch(playwright, executable=options.browser, adapter=adapter)
            )
            for _ in sides
        ]
        while goes_on(pairs):
            progress(phase, len(pairs), max(LEAST_PAIRS, len(pairs) + 1))
            pairs.append(await _pair(sides, browsers, plan, len(pairs)))
        progress(phase, len(pairs), len(pairs))
    return tuple(pairs)


def _turns() -> Iterator[int]:
    started, turns = time.monotonic(), 0
    while turns < _LEAST_TURNS or time.monotonic() - started < PAIR_SECONDS:
        yield from _TURNS
        turns += len(_TURNS)


async def _pair(
    sides: Sequence[Served],
    browsers: Sequence[Session],
    plan: Plan,
    number: int,
) -> PagePair:
    """A fresh page of each side.

    The sides exchange browsers from pair to pair, for two browsers need not be equally
    quick, and who begins changes with every second pair.
    """
    first = number // 2 % 2
    pages = await asyncio.gather(
        *(side.loaded(browsers[(which + number) % 2]) for which, side in enumerate(sides))
    )
    prompt = await Prompts().take(pages[0], plan.first_prompt)
    runs: tuple[list[DecodeRun], list[DecodeRun]] = ([], [])
    for place, turn in enumerate(_turns()):
        which = turn ^ first
        result = await pages[which].generate(prompt, 1 + plan.decode_tokens)
        warmup = plan.decode_tokens if place < _WARM_TURNS else plan.decode_warmup
        runs[which].append(decode_run(prompt, warmup, result, visit=number))
    for page in pages:
        await page.close()
    began: Literal["old", "new"] = "new" if first else "old"
    return PagePair(first=began, old=tuple(runs[0]), new=tuple(runs[1]))

"""How often the gate is wrong: false alarms on an unchanged bundle, slowdowns that it misses.

``python -m tests.bench.gate_power collect FOLDER`` measures a bundle in turns with itself
again and again, as ``tabwright measure --beside`` does and until it would stop, each time in two
fresh browsers, slowed ones spread evenly among the plain.  Slowed, the new page waits for a
known time after every token.  Collecting can be interrupted and goes on where it was.
``judge FOLDER`` hands each measurement to the real gate and prints a Markdown table.

No page is used in two measurements.  An unchanged one is judged twice, once with old and new
exchanged: of each, one direction at most can be a false alarm, so that their share is that of
gates which look one way only.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median

import click

from browser_harness.beside import Side, compare
from browser_harness.judge import judge
from browser_harness.judge.paired import time_ratio
from browser_harness.judge.statistics import judged
from browser_harness.machine import describe_machine
from browser_harness.plan import PAGE, PLANS, Options
from browser_harness.summary import summarise, target_bytes
from exporter.pipeline import export
from manifests.budget import Budget
from manifests.bundle import read_manifest
from manifests.progress import silent
from manifests.report import Beside, PagePair, Report, TargetReport
from targets import TARGETS
from tests.checkpoints import Variant, write_checkpoint

TARGET = "wasm-q4"
RUNTIME = PAGE.parent / "bundle"
BUDGET = Budget.model_validate(
    {"limits": {TARGET: {"decode_tokens_per_second": {"regression": 0.05}}}}
)
#: The aims, as shares: false alarms at most, slowdowns that are caught at least.
FALSE_ALARMS = 0.01
CAUGHT = 0.95
#: A token takes some milliseconds, so that most of it is the model's; a load is soon over.
MODEL = Variant(hidden=512, intermediate=1536, layers=4, heads=8, kv_heads=4)
#: The runtime lets the page breathe once per token, by a message to itself: the wait goes there.
SLOW = """(() => {
  const post = MessagePort.prototype.postMessage;
  MessagePort.prototype.postMessage = function (...message) {
    const until = performance.now() + %r;
    while (performance.now() < until);
    return post.apply(this, message);
  };
})();
"""


def slowed_page(folder: Path, wait_ms: float) -> Path:
    """A copy of the measuring page that waits ``wait_ms`` after every token."""
    shutil.copytree(PAGE, folder)
    (folder / "slow.js").write_text(SLOW % wait_ms, "utf-8")
    index = folder / "index.html"
    page = index.read_text("utf-8")
    index.write_text(page.replace("<script", '<script src="slow.js"></script><script', 1), "utf-8")
    return folder


def _bundle(given: Path | None, scratch: Path) -> Path:
    if given is not None:
        return given
    checkpoint = write_checkpoint(MODEL, scratch / "checkpoint")
    export(checkpoint, (TARGETS[TARGET],), scratch / "bundle", runtime=RUNTIME)
    return scratch / "bundle"


def _in_turns(bundle: Path, page: Path, seconds: float) -> tuple[PagePair, ...]:
    old, new = Side(bundle, TARGET, PAGE), Side(bundle, TARGET, page)
    plan = replace(PLANS["full"], sampling_seconds=seconds)
    options = Options(adapter="software", threads=1, plans={**PLANS, "full": plan})
    return compare(old, new, options, silent)


def _report(bundle: Path, pairs: tuple[PagePair, ...]) -> Report:
    """As 'measure --beside' would write it, without what is not judged here."""
    manifest = read_manifest(bundle)
    beside = Beside(
        bundle=manifest.model.name, seal=manifest.seal, target=TARGET, noise=(), pairs=pairs
    )
    target = TargetReport(
        execution_provider="wasm",
        threads=1,
        target_bytes=target_bytes(manifest, TARGET),
        decode=tuple(run for pair in pairs for run in pair.new),
        beside=beside,
    )
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tools={},
        bundle=summarise(manifest),
        machine=describe_machine(),
        targets={TARGET: target},
    )


def _kinds(plain: int, slow: int) -> list[str]:
    """The order of the measurements: after every so many plain ones a slowed one."""
    kinds = []
    for index in range(plain):
        kinds.append("plain")
        if (index + 1) * slow // plain > index * slow // plain:
            kinds.append("slow")
    return kinds


@click.group()
def main() -> None:
    """Measure in turns, then judge."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="[default: a small one, made here]")
@click.option("--plain", "unchanged", default=50, show_default=True, help="Of an unchanged bundle.")
@click.option("--slow", "slowed", default=20, show_default=True, help="Slowed ones.")
@click.option("--slowdown", default=10.0, show_default=True, help="Percent of a token's time.")
@click.option(
    "--sampling-seconds",
    "seconds",
    default=PLANS["full"].sampling_seconds,
    show_default=True,
    help="As of 'measure'.",
)
def collect(
    folder: Path,
    bundle: Path | None,
    unchanged: int,
    slowed: int,
    slowdown: float,
    seconds: float,
) -> None:
    """Measure plain and slowed pages into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        measured = _bundle(bundle, Path(scratch))
        setup = folder / "setup.json"
        if not setup.exists():
            found = _in_turns(measured, PAGE, seconds)
            ms = median([each for pair in found for each in judged((*pair.old, *pair.new))])
            wait = {"token_ms": ms, "slowdown": slowdown, "wait_ms": ms * slowdown / 100}
            setup.write_text(json.dumps(wait) + "\n", "utf-8")
        wait_ms = json.loads(setup.read_text("utf-8"))["wait_ms"]
        pages = {"plain": PAGE, "slow": slowed_page(Path(scratch) / "page", wait_ms)}
        begun = time.monotonic()
        for index, kind in enumerate(_kinds(unchanged, slowed)):
            path = folder / f"{index:04}-{kind}.json"
            if path.exists():
                continue
            found = _in_turns(measured, pages[kind], seconds)
            _report(measured, found).save(path)
            ratio, spent = time_ratio(found), time.monotonic() - begun
            told = "no ratio" if ratio is None else f"x {ratio.value:.3f}"
            click.echo(f"{path.name}: {told}, {len(found)} pairs, {spent:.0f} s", err=True)


def _exchanged(report: Report) -> Report:
    """The same measurement with the old side called new."""
    target = report.targets[TARGET]
    assert target.beside is not None
    sides = {"old": "new", "new": "old"}
    pairs = tuple(
        PagePair.model_validate({"first": sides[pair.first], "old": pair.new, "new": pair.old})
        for pair in target.beside.pairs
    )
    changed = target.model_copy(
        update={
            "beside": target.beside.model_copy(update={"pairs": pairs}),
            "decode": tuple(run for pair in pairs for run in pair.new),
        }
    )
    return report.model_copy(update={"targets": {TARGET: changed}})


def _outcome(report: Report) -> str:
    (check,) = judge(report, BUDGET).checks
    if check.comparison is None:
        raise click.ClickException(f"a measurement could not be judged: {check.reason}")
    return check.comparison.change


def _load(folder: Path, kind: str) -> list[Report]:
    return [Report.load(path) for path in sorted(folder.glob(f"*-{kind}.json"))]


def _share(count: int, total: int) -> str:
    """``count`` of ``total``, with Wilson's 95 % interval of the share."""
    z = 1.96
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    reach = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return f"{count} of {total} ({max(0, middle - reach):.1%} to {min(1, middle + reach):.1%})"


def _pairs(report: Report) -> tuple[PagePair, ...]:
    beside = report.targets[TARGET].beside
    return () if beside is None else beside.pairs


def _ratio(report: Report) -> float:
    found = time_ratio(_pairs(report))
    return math.nan if found is None else found.value


@main.command(name="judge")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def judge_folder(folder: Path) -> None:
    """Judge the measurements of FOLDER, and print the table."""
    plain, slow = _load(folder, "plain"), _load(folder, "slow")
    if not plain or not slow:
        raise click.ClickException(f"{folder}: collect measurements first")
    once = [_outcome(report) for report in plain]
    same = [*once, *(_outcome(_exchanged(report)) for report in plain)]
    seeded = [_outcome(report) for report in slow]
    setup = json.loads((folder / "setup.json").read_text("utf-8"))
    logs = [math.log(_ratio(report)) for report in plain]
    off = [abs(log) for log in logs]
    machine = plain[0].machine
    pairs = [len(_pairs(report)) for report in (*plain, *slow)]
    rows = [
        (f"unchanged, {name}", _share(same.count(name), len(same)))
        for name in ("regressed", "improved")
    ]
    # These do not change when the sides are exchanged.
    rows += [
        (f"unchanged, {name}", _share(once.count(name), len(once)))
        for name in ("same", "inconclusive")
    ]
    rows += [
        (f"{setup['slowdown']:g} % slower, {name}", _share(seeded.count(name), len(seeded)))
        for name in ("regressed", "improved", "same", "inconclusive")
    ]
    click.echo(
        f"{machine.cpu}, {machine.cores} cores; {TARGET}, {setup['token_ms']:.2f} ms a token, "
        f"{min(pairs)} to {max(pairs)} pairs of fresh pages a gate; unchanged, the ratio is "
        f"off 1 by {median(off):.1%} (median) and {max(off):.1%} (most), "
        f"and {math.exp(fmean(logs)):.3f} on average.\n\n"
        "| gates | verdicts |\n| --- | --- |"
    )
    for name, share in rows:
        click.echo(f"| {name} | {share} |")
    if same.count("regressed") > FALSE_ALARMS * len(same):
        raise click.ClickException("more false alarms than the aim allows")
    if seeded.count("regressed") < CAUGHT * len(seeded):
        raise click.ClickException("fewer slowdowns caught than the aim asks for")


if __name__ == "__main__":
    sys.exit(main())

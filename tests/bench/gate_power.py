"""How often the gate is wrong: false alarms on an unchanged bundle, slowdowns that it misses.

``python -m tests.bench.gate_power collect FOLDER`` measures one bundle again and again, each
report in a fresh browser, slowed ones spread evenly among the plain.  Slowed, the page waits
for a known time after every token.  ``judge FOLDER`` hands pairs of reports to the real gate
and prints a Markdown table.  Collecting can be interrupted and goes on where it was.

A pair is two reports that were measured one after the other, the earlier plain.  None are
shuffled: a machine that drifts must be allowed to fool the gate here, too.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import click

from browser_harness.judge import judge
from browser_harness.judge.statistics import judged
from browser_harness.measure import measure
from browser_harness.plan import PAGE, PLANS, Options
from exporter.pipeline import export
from manifests.budget import Budget
from manifests.report import Report
from targets import TARGETS
from tests.checkpoints import VARIANTS, write_checkpoint

TARGET = "wasm-q4"
RUNTIME = PAGE.parent / "bundle"
BUDGET = Budget.model_validate(
    {"limits": {TARGET: {"decode_tokens_per_second": {"regression": 0.05}}}}
)
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


def token_ms(report: Report) -> float:
    """The median time of a token."""
    return median(judged(report.targets[TARGET].decode))


def _bundle(given: Path | None, scratch: Path) -> Path:
    if given is not None:
        return given
    checkpoint = write_checkpoint(VARIANTS["w4a16-g32"], scratch / "checkpoint")
    export(checkpoint, (TARGETS[TARGET],), scratch / "bundle", runtime=RUNTIME)
    return scratch / "bundle"


def _options(page: Path, seconds: float, tokens: int) -> Options:
    # Prefill is not judged here, and one length only keeps a report short.
    plan = replace(
        PLANS["full"], prefill_lengths=(16,), decode_tokens=tokens, sampling_seconds=seconds
    )
    return Options(adapter="software", threads=1, page=page, plans={**PLANS, "full": plan})


def _kinds(plain: int, slow: int) -> list[str]:
    """The order of the reports: after every so many plain ones a slowed one."""
    kinds = []
    for index in range(plain):
        kinds.append("plain")
        if (index + 1) * slow // plain > index * slow // plain:
            kinds.append("slow")
    return kinds


@click.group()
def main() -> None:
    """Collect reports, then judge them in pairs."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="[default: a tiny one, made here]")
@click.option("--plain", "unchanged", default=101, show_default=True, help="Plain reports.")
@click.option("--slow", "slowed", default=20, show_default=True, help="Slowed reports.")
@click.option("--slowdown", default=10.0, show_default=True, help="Percent of a token's time.")
@click.option("--seconds", default=100.0, show_default=True, help="Sampling limit of a report.")
@click.option("--tokens", default=64, show_default=True, help="Of each decode run.")
def collect(
    folder: Path,
    bundle: Path | None,
    unchanged: int,
    slowed: int,
    slowdown: float,
    seconds: float,
    tokens: int,
) -> None:
    """Measure plain and slowed reports into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        measured = _bundle(bundle, Path(scratch))
        plain = _options(PAGE, seconds, tokens)
        setup = folder / "setup.json"
        if not setup.exists():
            ms = token_ms(measure(measured, targets=(TARGET,), options=plain))
            wait = {"token_ms": ms, "slowdown": slowdown, "wait_ms": ms * slowdown / 100}
            setup.write_text(json.dumps(wait) + "\n", "utf-8")
        wait_ms = json.loads(setup.read_text("utf-8"))["wait_ms"]
        slow = _options(slowed_page(Path(scratch) / "page", wait_ms), seconds, tokens)
        begun = time.monotonic()
        for index, kind in enumerate(_kinds(unchanged, slowed)):
            path = folder / f"{index:04}-{kind}.json"
            if path.exists():
                continue
            report = measure(measured, targets=(TARGET,), options=slow if kind == "slow" else plain)
            report.save(path)
            spent = time.monotonic() - begun
            click.echo(f"{path.name}: {token_ms(report):.2f} ms a token, {spent:.0f} s", err=True)


def _outcome(old: Report, new: Report) -> str:
    (check,) = judge(new, BUDGET, old).checks
    if check.comparison is None:
        raise click.ClickException(f"a pair could not be judged: {check.reason}")
    return check.comparison.change


def _load(folder: Path, kind: str) -> list[tuple[int, Report]]:
    return [
        (int(path.name[:4]), Report.load(path)) for path in sorted(folder.glob(f"*-{kind}.json"))
    ]


def _share(count: int, total: int) -> str:
    """``count`` of ``total``, with Wilson's 95 % interval of the share."""
    z = 1.96
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    reach = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return f"{count} of {total} ({max(0, middle - reach):.1%} to {min(1, middle + reach):.1%})"


@main.command(name="judge")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def judge_folder(folder: Path) -> None:
    """Judge the reports of FOLDER in pairs, and print the table."""
    plain, slow = _load(folder, "plain"), _load(folder, "slow")
    if len(plain) < 2 or not slow:
        raise click.ClickException(f"{folder}: collect reports first")
    same = [_outcome(old, new) for (_, old), (_, new) in pairwise(plain)]
    seeded = [_outcome(dict(plain)[at - 1], new) for at, new in slow]
    setup = json.loads((folder / "setup.json").read_text("utf-8"))
    times = [token_ms(report) for _, report in plain]
    drift = [abs(math.log(b / a)) for a, b in pairwise(times)]
    pages = [len({run.visit for run in r.targets[TARGET].decode}) for _, r in plain]
    machine = plain[0][1].machine
    rows = [
        (f"unchanged, {name}", _share(same.count(name), len(same)))
        for name in ("regressed", "improved", "same", "inconclusive")
    ]
    rows += [
        (f"{setup['slowdown']:g} % slower, {name}", _share(seeded.count(name), len(seeded)))
        for name in ("regressed", "improved", "same", "inconclusive")
    ]
    click.echo(
        f"{machine.cpu}, {machine.cores} cores; {TARGET}, {setup['token_ms']:.2f} ms a token, "
        f"{median(pages):g} fresh pages a report; two neighbouring reports' medians differ by "
        f"{median(drift):.1%} (median) and {max(drift):.1%} (most).\n\n"
        "| pairs | verdicts |\n| --- | --- |"
    )
    for name, share in rows:
        click.echo(f"| {name} | {share} |")


if __name__ == "__main__":
    sys.exit(main())

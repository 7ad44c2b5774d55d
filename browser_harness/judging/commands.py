"""gate, compare and trend: what happens to reports after they were measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests.console import Console
from manifests.errors import EXIT_USAGE, TabwrightError
from manifests.options import PATH

if TYPE_CHECKING:
    from manifests.budget import Budget
    from manifests.report import Report, Verdict


class BudgetExists(TabwrightError):
    """``gate --init`` would write over a budget."""

    code = "budget-exists"
    exit_status = EXIT_USAGE

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: is there already", "name another file, or leave out --budget to see it"
        )


def judge_report(
    path: Path, budget: Path | None, targets: frozenset[str], *, baseline: Path | None = None
) -> tuple[Report, Verdict]:
    """Judge the report at ``path`` and write the verdict into it.

    Args:
        path: the report, which is replaced by the judged one.
        budget: the limits; without them the default ones, and with a baseline 5 % on sizes
            and times besides.
        targets: every target there is; those of the report may be limited, too.
        baseline: an earlier report, for limits on regressions.

    Returns:
        The judged report, and its verdict.

    Raises:
        NotFound, BadDocument: a report or the budget cannot be read.
        UnknownBudgetTarget, UnknownMetric, WrongLimit, EmptyBudget, NoRegressionLimit: the
            budget cannot be judged.
        NotComparable, NothingShared: the baseline was measured in another environment.
    """
    from browser_harness.judge import check_budget, default_budget, judge
    from manifests.budget import Budget
    from manifests.report import Report

    report = Report.load(path)
    if budget is not None:
        limits = Budget.load(budget)
    else:
        limits = default_budget(report, against_baseline=baseline is not None)
    check_budget(limits, targets | report.targets.keys())
    verdict = judge(report, limits, None if baseline is None else Report.load(baseline))
    judged = report.model_copy(update={"verdict": verdict})
    judged.save(path)
    return judged, verdict


def write_views(
    report: Report,
    *,
    html: Path | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Write the report for people and for CI, and add it to a GitHub step's summary."""
    from browser_harness.report import append_summary, render_markdown, write_html, write_junit

    if html is not None:
        write_html(report, html)
    if junit is not None:
        write_junit(report, junit)
    if markdown is not None:
        markdown.write_text(render_markdown(report), "utf-8")
    append_summary(report, os.environ)


def _propose(path: Path, budget: Path | None, headroom: float) -> tuple[Budget, str]:
    from browser_harness.judge.proposal import propose, to_toml
    from manifests.report import Report

    report = Report.load(path)
    if budget is not None and budget.exists():
        raise BudgetExists(budget)
    proposed = propose(report, headroom / 100)
    heading = (
        f"Proposed from the report of {report.created} on {report.bundle.name}: "
        f"{headroom:g} % headroom on\nsizes, times, speeds and memory; losses may double; "
        "shares and counts may not get worse."
    )
    text = to_toml(proposed, heading)
    if budget is not None:
        budget.write_text(text, "utf-8")
    return proposed, text.removesuffix("\n")


def _annotates(choice: str, environment: Mapping[str, str]) -> bool:
    return choice == "github" or (choice == "auto" and environment.get("GITHUB_ACTIONS") == "true")


@click.command()
@click.argument("report", type=PATH)
@click.option(
    "--budget",
    type=PATH,
    help="The limits, e.g. budget.toml; without it, docs/budget.md's defaults.",
)
@click.option("--baseline", type=PATH, help="An earlier report, which this one is compared with.")
@click.option("--html", type=PATH, help="Write the report as one page that opens offline.")
@click.option("--junit", type=PATH, help="Write the verdict as JUnit XML.")
@click.option("--markdown", type=PATH, help="Write the report as Markdown.")
@click.option("--history", type=PATH, help="Append a line about it to this file (JSON Lines).")
@click.option(
    "--annotations",
    type=click.Choice(["auto", "github", "none"]),
    default="auto",
    show_default=True,
    help="Lines on stderr that GitHub shows on its pages; auto writes them in its workflows.",
)
@click.option(
    "--init", is_flag=True, help="Judge nothing: propose a budget, and write it to --budget."
)
@click.option(
    "--headroom",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    metavar="PERCENT",
    help="How much worse than the report --init allows sizes, times and memory to be.",
)
@click.pass_context
def gate(
    context: click.Context,
    *,
    report: Path,
    budget: Path | None,
    baseline: Path | None,
    html: Path | None,
    junit: Path | None,
    markdown: Path | None,
    history: Path | None,
    annotations: str,
    init: bool,
    headroom: float,
) -> None:
    """Judge a report by a budget.

    With --baseline, ratios to an earlier report are judged by their intervals: regressed,
    improved, same, inconclusive.  Writes the verdict into the report, and appends Markdown
    to the file that GITHUB_STEP_SUMMARY names.  Exit status: 0 passed, 1 failed,
    5 inconclusive.
    """
    console: Console = context.obj
    if init:
        console.show(*_propose(report, budget, headroom))
        return
    from browser_harness.judge import exit_status
    from browser_harness.report import annotate, render

    judged, verdict = judge_report(report, budget, console.targets, baseline=baseline)
    write_views(judged, html=html, junit=junit, markdown=markdown)
    if history is not None:
        from browser_harness.judge.history import append, entry

        append(history, entry(judged))
    if _annotates(annotations, os.environ):
        for line in annotate(judged):
            # GitHub reads both streams; stdout stays the result, which may be JSON.
            click.echo(line, err=True)
    console.show(verdict, render(judged))
    context.exit(exit_status(verdict))


def _named(paths: tuple[Path, ...]) -> list[tuple[str, Report]]:
    """Each report with the shortest end of its path that no other has."""
    from manifests.report import Report

    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            break
    return [(label, Report.load(path)) for label, path in zip(labels, paths, strict=True)]


@click.command()
@click.argument("reports", nargs=-1, required=True, type=PATH)
@click.option("--html", type=PATH, help="Write the comparison as one page.")
@click.option("--markdown", type=PATH, help="Write it as Markdown.")
@click.option("--csv", "csv_path", type=PATH, help="Write every number as CSV.")
@click.pass_obj
def compare(
    console: Console,
    *,
    reports: tuple[Path, ...],
    html: Path | None,
    markdown: Path | None,
    csv_path: Path | None,
) -> None:
    """Show several reports side by side.

    Ratios are to the first one.  Where machines, browsers, adapters, threads or prompts
    differ, that is told beside the figures, which then have no ratio.
    """
    from browser_harness.report import comparison
    from browser_harness.report.pages import render_comparison

    named = _named(reports)
    records, outside = comparison.records(named), comparison.outside(named)
    if html is not None:
        html.write_text(render_comparison(named), "utf-8")
    if markdown is not None:
        markdown.write_text(comparison.to_markdown(named), "utf-8")
    if csv_path is not None:
        csv_path.write_text(comparison.to_csv([*records, *outside]), "utf-8")
    document = comparison.SideBySide(
        environment=tuple(comparison.environment(named)),
        figures=tuple(records),
        outside=tuple(outside),
    )
    console.show(document, comparison.to_terminal(named, records))


@click.command()
@click.argument("history", type=PATH)
@click.option("--html", type=PATH, help="Write the plots as one page.")
@click.pass_obj
def trend(console: Console, *, history: Path, html: Path | None) -> None:
    """Show how the figures went over a history.

    The history is the file that 'gate --history' appends to.
    """
    from browser_harness.judge.history import read
    from browser_harness.report import trend as view
    from browser_harness.report.pages import render_trend

    entries = read(history)
    if html is not None:
        html.write_text(render_trend(entries), "utf-8")
    console.show(view.document(entries), view.to_terminal(entries))

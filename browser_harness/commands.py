"""The harness's commands: measure, gate, serve, doctor."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests.console import Console
from manifests.errors import EXIT_ENVIRONMENT

if TYPE_CHECKING:
    from browser_harness.flags import AdapterChoice
    from manifests.progress import Progress
    from manifests.report import Report, Verdict

_PATH = click.Path(path_type=Path)


def measure_bundle(
    bundle: Path,
    reference: Path | None,
    targets: tuple[str, ...],
    out: Path,
    *,
    adapter: AdapterChoice,
    threads: int | None,
    browser: Path | None,
    progress: Progress,
) -> Report:
    """Measure ``targets`` of a bundle, every one where none is named, and write the report.

    Without a reference, parity is left out.

    Raises:
        TabwrightError: whatever :func:`browser_harness.measure.measure` refuses.
    """
    from browser_harness.measure import measure
    from browser_harness.plan import Options, default_threads

    options = Options(browser=browser, adapter=adapter, threads=threads or default_threads())
    report = measure(bundle, reference, targets, options, progress)
    report.save(out)
    return report


def check_environment(*, adapter: AdapterChoice, browser: Path | None, on_gpu: bool) -> None:
    """Refuse what measuring would refuse: no browser, not the adapter that was named.

    Raises:
        TabwrightError: whatever :func:`browser_harness.measure.check_environment` refuses.
    """
    from browser_harness import measure
    from browser_harness.plan import Options

    measure.check_environment(Options(browser=browser, adapter=adapter), on_gpu=on_gpu)


def judge_report(path: Path, budget: Path, targets: frozenset[str]) -> tuple[Report, Verdict]:
    """Judge the report at ``path`` and write the verdict into it.

    Args:
        path: the report, which is replaced by the judged one.
        budget: the limits.
        targets: every target there is; those of the report may be limited, too.

    Returns:
        The judged report, and its verdict.

    Raises:
        NotFound, BadDocument: the report or the budget cannot be read.
        UnknownBudgetTarget, UnknownMetric, EmptyBudget: the budget cannot be judged.
    """
    from browser_harness.judge import check_budget, judge
    from manifests.budget import Budget
    from manifests.report import Report

    report = Report.load(path)
    limits = Budget.load(budget)
    check_budget(limits, targets | report.targets.keys())
    verdict = judge(report, limits)
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


@click.command()
@click.argument("bundle", type=_PATH)
@click.option("--reference", type=_PATH, help="What 'reference' wrote; parity needs it.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="A target of the bundle; repeat for several.  [default: all]",
)
@click.option(
    "-o",
    "--output",
    type=_PATH,
    required=True,
    help="The file, e.g. report.json; replaced if it is there.",
)
@click.option(
    "--adapter",
    type=click.Choice(["auto", "hardware", "software"]),
    default="auto",
    show_default=True,
    help="The WebGPU adapter; auto takes hardware where there is some.",
)
@click.option("--threads", type=click.IntRange(min=1), help="WASM threads.")
@click.option("--browser", type=_PATH, help="The browser's executable; otherwise one is found.")
@click.pass_context
def measure(
    context: click.Context,
    *,
    bundle: Path,
    reference: Path | None,
    targets: tuple[str, ...],
    output: Path,
    adapter: AdapterChoice,
    threads: int | None,
    browser: Path | None,
) -> None:
    """Run a bundle in a browser.

    Starts a headless Chromium on a profile of its own, compares its answers with
    the reference and keeps every sample.  A target that fails is in the report.
    Exit status: 0 when at least one target was measured, 4 when every one failed.
    """
    from browser_harness.report import render

    console: Console = context.obj
    report = measure_bundle(
        bundle,
        reference,
        targets,
        output,
        adapter=adapter,
        threads=threads,
        browser=browser,
        progress=console.progress,
    )
    console.show(report, render(report))
    if all(target.failure is not None for target in report.targets.values()):
        context.exit(EXIT_ENVIRONMENT)


@click.command()
@click.argument("report", type=_PATH)
@click.option("--budget", type=_PATH, required=True, help="The limits, e.g. budget.toml.")
@click.option("--html", type=_PATH, help="Write the report as one page that opens offline.")
@click.option("--junit", type=_PATH, help="Write the verdict as JUnit XML.")
@click.option("--markdown", type=_PATH, help="Write the report as Markdown.")
@click.pass_context
def gate(
    context: click.Context,
    *,
    report: Path,
    budget: Path,
    html: Path | None,
    junit: Path | None,
    markdown: Path | None,
) -> None:
    """Judge a report by a budget.

    Writes the verdict into the report, and appends Markdown to the file that
    GITHUB_STEP_SUMMARY names.  Exit status: 0 passed, 1 failed, 5 inconclusive.
    """
    from browser_harness.judge import exit_status
    from browser_harness.report import render

    console: Console = context.obj
    judged, verdict = judge_report(report, budget, console.targets)
    write_views(judged, html=html, junit=junit, markdown=markdown)
    console.show(verdict, render(judged))
    context.exit(exit_status(verdict))


@click.command()
@click.argument("bundle", type=_PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--open/--no-open", "opens", default=True, help="Open it in your browser.")
@click.pass_obj
def serve(console: Console, *, bundle: Path, port: int, opens: bool) -> None:
    """Open a bundle in your own browser.

    Serves it on this machine only, until Ctrl-C.
    """
    from browser_harness.serve import StaticServer
    from manifests.bundle import read_manifest

    manifest = read_manifest(bundle)
    # Ctrl-C is how this is meant to end.
    with suppress(KeyboardInterrupt), StaticServer({"/": bundle}, port) as server:
        console.show(
            {"url": server.url, "seal": manifest.seal},
            f"{manifest.model.name}: {server.url} (Ctrl-C ends it)",
        )
        if opens:
            click.launch(server.url)
        threading.Event().wait()


@click.command()
@click.pass_obj
def doctor(console: Console) -> None:
    """Tell what this machine can do.

    Browser, WebGPU adapters with their features and limits, CUDA and Node; and what
    to install where something is missing.
    """
    from browser_harness.doctor import examine, render

    findings = examine(console.progress)
    console.show(findings, render(findings))

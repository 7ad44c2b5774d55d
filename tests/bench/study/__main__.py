"""Every method on two models, through the whole pipeline: ``python -m tests.bench.study``.

Writes docs/study.md and docs/results/study.json after every row.  Rows that are kept under
build/study are not done again, unless the model, the method, the texts or a library that
decides them has changed; a change of our own export is told by ``_REVISION`` in work.py.
``--published`` takes those of docs/results/study.json, too: it goes on where another machine was.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from browser_harness.machine import describe_machine
from exporter.compress.demo import DEMO_MODELS, DemoModel, plain_checkpoint
from exporter.reference.quiet import quiet_libraries
from manifests.errors import TabwrightError
from manifests.progress import Lines, Progress
from tests.bench.study.rows import ROWS, Result, Row, Study
from tests.bench.study.table import render
from tests.bench.study.texts import cut_windows, evaluation_texts
from tests.bench.study.work import Subject, work

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "build" / "study"
PAGE = ROOT / "docs" / "study.md"
RAW = ROOT / "docs" / "results" / "study.json"
_PACKAGES = ("bitsandbytes", "llmcompressor", "onnx-ir", "torch", "transformers")


def _subject(model: DemoModel, progress: Progress) -> Subject:
    from transformers import AutoTokenizer

    checkpoint = plain_checkpoint(model, progress)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    windows = cut_windows(tokenizer, evaluation_texts())
    return Subject(model.name, checkpoint, windows, KEPT / model.name, progress)


def _result(subject: Subject, row: Row) -> Result:
    """The row that is kept, or the one that is found now; a failure is a result, too."""
    kept = subject.result(row)
    if kept is not None and kept.failure is None:
        return kept
    started = time.monotonic()
    try:
        with quiet_libraries():
            result = work(subject, row)
    except Exception as error:  # noqa: BLE001 - one row's failure must not stop the others
        traceback.print_exc()
        code = error.code if isinstance(error, TabwrightError) else type(error).__name__
        result = Result(
            model=subject.name,
            row=row.name,
            key=subject.key(row),
            failure=f"{code}: {error}",
            seconds=time.monotonic() - started,
        )
    result = result.model_copy(update=_found_here())
    subject.keep(row, result)
    gc.collect()
    return result


def _found_here() -> dict[str, Any]:
    """The day, the machine and the packages of this run."""
    machine = describe_machine()
    return {
        "date": datetime.now(UTC).date(),
        "machine": f"{machine.cpu}, {machine.cores} cores",
        "versions": {package: version(package) for package in _PACKAGES},
    }


def _study(subjects: Sequence[Subject]) -> Study:
    """What is known so far."""
    found = [subject.result(row) for subject in subjects for row in ROWS.values()]
    return Study(
        windows={
            subject.name: dict(Counter(text.language for text in subject.windows))
            for subject in subjects
        },
        results=tuple(result for result in found if result is not None),
    )


def _take_published(subjects: Sequence[Subject]) -> None:
    by_name = {subject.name: subject for subject in subjects}
    for result in Study.load(RAW).results:
        subject, row = by_name[result.model], ROWS[result.row]
        if result.failure is None and subject.result(row) is None:
            subject.keep(row, result)


def _write(study: Study) -> None:
    study.save(RAW)
    PAGE.write_text(render(study), "utf-8")


@click.command()
@click.option("--row", "rows", multiple=True, type=click.Choice(list(ROWS)), help="Only these.")
@click.option("--published", is_flag=True, help="Keep the rows of docs/results/study.json.")
def main(rows: tuple[str, ...], *, published: bool) -> None:
    """Do every row that is not kept, and write the page."""
    progress = Lines()
    subjects = [_subject(model, progress) for model in DEMO_MODELS.values()]
    if published:
        _take_published(subjects)
    for subject in subjects:
        for name in rows or ROWS:
            row = ROWS[name]
            click.echo(f"{subject.name}: {row.title}", err=True)
            result = _result(subject, row)
            click.echo(f"  {result.failure or 'done'} ({result.seconds:.0f} s)", err=True)
            progress.close()
            _write(_study(subjects))


if __name__ == "__main__":
    sys.exit(main())

"""Questions with choices, asked of a real bundle, in the browser and in PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browser_harness.answers import ReferenceMismatch
from browser_harness.measure import measure
from browser_harness.plan import PAGE, PLANS, Options
from browser_harness.report.html import render_html
from exporter.pipeline import export
from exporter.reference.make import make_reference
from exporter.reference.model import load_bundle
from exporter.reference.prompts import open_tokenizer
from exporter.reference.questions import ask
from manifests.bundle import read_manifest
from manifests.progress import silent
from manifests.questions import Questions
from manifests.report import Report
from targets import find_targets

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

ROWS: tuple[dict[str, Any], ...] = (
    {"question": "Who jumps over the dog?", "choices": ["a fox", "a cat"], "answer": 0},
    {"question": "What is small?", "choices": ["a tab", "a sea", "a sun", "a sky"], "answer": 2},
    {
        "Question": "متى أرسل المهندس الرسالة؟",
        "Context": "كتب المهندس رسالة قصيرة.",
        "Option 1": "في المساء",
        "Option 2": "في الصباح",
        "Option 3": "في الليل",
        "Answer Key": "A",
    },
)
BRIEF = replace(
    PLANS["full"],
    warm_loads=1,
    prefill_lengths=(),
    decode_tokens=4,
    sampling_seconds=0.0,
    bandwidth_bytes=1 << 20,
    score_texts=1,
    score_tokens=4,
    greedy_cases=0,
)


@pytest.fixture(scope="module")
def made(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """A bundle, its reference and the questions that both are asked."""
    folder = tmp_path_factory.mktemp("questions")
    checkpoint = tiny_checkpoint("w4a16-g32")
    runtime = PAGE.parent / "bundle"
    export(checkpoint, find_targets(["wasm-q4"]), folder / "bundle", runtime=runtime)
    tasks = folder / "tasks.jsonl"
    tasks.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), "utf-8")
    reference = folder / "reference.json"
    brief: dict[str, Any] = {"device": "cpu", "repetitions": 1, "decode_tokens": 2}
    make_reference(checkpoint, folder / "bundle", reference, tasks=tasks, **brief)
    return folder / "bundle", reference, tasks


@pytest.fixture(scope="module")
def report(made: tuple[Path, Path, Path]) -> Report:
    bundle, reference, tasks = made
    options = Options(plans={**PLANS, "full": BRIEF}, threads=1)
    return measure(bundle, reference, options=options, tasks=tasks)


def test_the_browser_answers_as_pytorch_does(
    report: Report, made: tuple[Path, Path, Path], tiny_checkpoint: Callable[[str], Path]
) -> None:
    bundle, _, tasks = made
    checkpoint, manifest = tiny_checkpoint("w4a16-g32"), read_manifest(bundle)
    # With the bundle's weights: what the report sets beside it is the checkpoint's answers.
    expected = ask(
        load_bundle(checkpoint, bundle, manifest.weights["q4"], "cpu"),
        open_tokenizer(checkpoint),
        Questions.load(tasks),
        manifest.model.context_length,
        silent,
    )
    target = report.targets["wasm-q4"]
    assert target.failure is None, target.failure
    own, checkpoint_s = target.questions, target.reference_questions
    assert own is not None
    assert checkpoint_s is not None
    assert [answer.right for answer in own.answers] == [0, 2, 0]
    assert [len(answer.logprobs) for answer in own.answers] == [2, 4, 3]
    for mine, theirs in zip(own.answers, expected.answers, strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
    assert [answer.line for answer in checkpoint_s.answers] == [1, 2, 3]


def test_arabic_reads_right_to_left_in_the_report(report: Report) -> None:
    target = report.targets["wasm-q4"]
    assert target.questions is not None
    wrong = [
        answer.model_copy(update={"right": 1 if answer.chosen != 1 else 0})
        for answer in target.questions.answers
    ]
    asked = target.questions.model_copy(update={"answers": tuple(wrong)})
    changed = target.model_copy(update={"questions": asked})
    page = render_html(report.model_copy(update={"targets": {"wasm-q4": changed}}))
    text = wrong[-1].text
    before = page[: page.index(text.splitlines()[-1])]
    assert 'dir="auto"' in before[before.rindex("<div") :]
    assert "0.0%" in page


def test_answers_to_other_questions_are_refused(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    bundle, reference, tasks = made
    other = tmp_path / "other.jsonl"
    other.write_bytes(tasks.read_bytes() + b"\n")
    with pytest.raises(ReferenceMismatch, match="other questions"):
        measure(bundle, reference, tasks=other)

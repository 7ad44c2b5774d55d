"""The budget where none is given: half of fp16's size, 85 % of its accuracy."""

from __future__ import annotations

from typing import Any

import pytest

from browser_harness.judge import default_budget, judge
from browser_harness.judge.limits import WrongLimit, check_limits
from manifests.budget import Budget
from manifests.questions import Answer, Answers
from manifests.report import Check, Report
from manifests.sweeps import Sweeps
from tests.unit.reports import healthy_report


def answers(right: int, of: int) -> Answers:
    """``of`` questions with two choices, the first of which is right and chosen ``right`` times."""
    one = {"text": "?", "choices": ("a", "b"), "right": 0}
    return Answers(
        file="q.jsonl",
        sha256="0" * 64,
        answers=tuple(
            Answer.model_validate(
                {**one, "line": line + 1, "logprobs": (0.0, -1.0) if line < right else (-1.0, 0.0)}
            )
            for line in range(of)
        ),
    )


def report(name: str = "wasm-q4", **changes: Any) -> Report:
    whole = healthy_report()
    target = whole.targets["wasm-q4"].model_copy(update={"fp16_bytes": 262_428_672, **changes})
    return whole.model_copy(update={"targets": {name: target}})


def check(of: Report, metric: str) -> Check:
    return {each.metric: each for each in judge(of, default_budget(of)).checks}[metric]


def test_half_of_fp16_is_small_enough() -> None:
    # 131,214,336 bytes are exactly half.
    found = check(report(), "size_of_fp16")
    assert (found.value, found.outcome) == (0.5, "pass")
    assert check(report(fp16_bytes=262_428_670), "size_of_fp16").outcome == "fail"
    # Eight bits cannot be less than half of sixteen.
    larger = report("webgpu-q8", fp16_bytes=200_000_000)
    assert check(larger, "size_of_fp16").outcome == "warn"


@pytest.mark.parametrize(("right", "outcome"), [(17, "pass"), (16, "fail")])
def test_accuracy_is_held_against_the_uncompressed_model(right: int, outcome: str) -> None:
    asked = report(questions=answers(right, 25), original_questions=answers(20, 25))
    found = check(asked, "question_accuracy")
    assert (found.of, found.limit, found.outcome) == ("original", 0.85, outcome)
    assert found.reason == f"{right / 20:g} × the uncompressed model's 0.8000"


def test_without_an_original_accuracy_is_not_judged() -> None:
    found = check(report(questions=answers(1, 25)), "question_accuracy")
    assert (found.outcome, found.reason) == ("inconclusive", "not judged: no original")


def test_parity_is_asked_for_where_there_is_a_reference() -> None:
    whole = report()
    assert "runtime_top1" in default_budget(whole).defaults
    alone = default_budget(whole.model_copy(update={"reference": None}))
    assert set(alone.defaults) == {"size_of_fp16", "question_accuracy", "console_errors"}


def test_a_sweep_that_was_asked_for_may_not_fail() -> None:
    assert check(report(sweeps=Sweeps()), "failed_sweeps").outcome == "pass"
    assert check(report(sweeps=Sweeps(failed=("loads",))), "failed_sweeps").outcome == "fail"
    assert "failed_sweeps" not in default_budget(report()).of("wasm-q4")


def test_the_original_has_only_some_figures() -> None:
    limit = {"max": 1, "of": "original"}
    budget = Budget.model_validate({"defaults": {"target_bytes": limit}})
    with pytest.raises(WrongLimit, match="uncompressed model's"):
        check_limits(budget)

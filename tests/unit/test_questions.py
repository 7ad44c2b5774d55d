"""Files of questions, and how many were answered right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from browser_harness.continuations import plan_passes
from browser_harness.judge.accuracy import accuracy, accuracy_interval
from manifests.errors import NotFound
from manifests.questions import Answer, Answers, QuestionInvalid, Questions

MMLU: dict[str, Any] = {"question": " 1 + 1? ", "choices": ["1", "2", "3", "4"], "answer": 1}
ARABIC: dict[str, Any] = {
    "ID": 7,
    "Question": "ما عاصمة فرنسا؟",
    "Context": None,
    "Option 1": "باريس",
    "Option 2": "لندن",
    "Option 3": "روما",
    "Option 4": None,
    "Option 5": None,
    "Answer Key": "C",
}


def _write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return path


def test_columns_tell_whose_row_it_is(tmp_path: Path) -> None:
    context = {**ARABIC, "Context": "باريس في فرنسا."}
    found = Questions.load(_write(tmp_path / "q.jsonl", MMLU, ARABIC, context))
    english, arabic, longer = found.questions
    assert english.prompt == "1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    assert english.continuations == (" A", " B", " C", " D")
    assert (english.line, english.right) == (1, 1)
    assert arabic.prompt == "ما عاصمة فرنسا؟\nA. باريس\nB. لندن\nC. روما\nAnswer:"
    assert (arabic.line, arabic.right) == (2, 2)
    assert longer.prompt.startswith("باريس في فرنسا.\n\nما عاصمة فرنسا؟\nA. ")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "?", "options": []}, "unknown columns prompt, options"),
        ({}, "unknown columns"),
        ([1], "not an object"),
        ({**MMLU, "question": " "}, "no question"),
        ({**MMLU, "choices": ["1"]}, "choices"),
        ({**MMLU, "choices": "1234"}, "choices"),
        ({**MMLU, "choices": ["1", 2]}, "no text"),
        ({**MMLU, "answer": 4}, "none of 4"),
        ({**MMLU, "answer": -1}, "none of 4"),
        ({**MMLU, "answer": True}, "none of 4"),
        ({**ARABIC, "Answer Key": "D"}, "none of 3"),
        ({**ARABIC, "Option 2": None}, "no text"),
    ],
)
def test_a_row_that_is_no_question_is_named(row: object, reason: str, tmp_path: Path) -> None:
    with pytest.raises(QuestionInvalid, match="line 2") as caught:
        Questions.load(_write(tmp_path / "q.jsonl", MMLU, row))
    assert reason in str(caught.value)


@pytest.mark.parametrize("change", [{"question": "\ud800"}, {"choices": ["1", "\udfff"]}])
def test_half_of_a_surrogate_pair_is_no_question(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    # A whole pair is a character.
    rows = ({**MMLU, "question": "😀"}, {**MMLU, **change})
    path.write_text("\n".join(json.dumps(row) for row in rows), "ascii")
    with pytest.raises(QuestionInvalid, match="line 2"):
        Questions.load(path)


def test_files_without_questions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "text.jsonl").write_text("who?")
    for name in ("empty.jsonl", "text.jsonl"):
        with pytest.raises(QuestionInvalid):
            Questions.load(tmp_path / name)
    with pytest.raises(NotFound):
        Questions.load(tmp_path / "none.jsonl")


def _answers(right: int, count: int) -> Answers:
    answers = tuple(
        Answer(
            line=n + 1,
            text="?",
            choices=("a", "b"),
            right=0,
            logprobs=(-1.0, -2.0) if n < right else (-2.0, -1.0),
        )
        for n in range(count)
    )
    return Answers(file="q.jsonl", sha256="0" * 64, answers=answers)


def test_wilson_s_interval_is_scipy_s() -> None:
    from scipy.stats import binomtest

    for right, count in ((0, 5), (3, 10), (57, 100), (20, 20)):
        found = accuracy_interval(_answers(right, count))
        expected = binomtest(right, count).proportion_ci(0.99, method="wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert accuracy(_answers(right, count)) == right / count
    assert accuracy(None) is accuracy(_answers(0, 0)) is None


def test_letters_of_one_question_are_one_pass() -> None:
    [letters, word] = plan_passes([([1, 2], [3]), ([1, 2], [4]), ([1, 2], [3, 5])], 8)
    assert letters.fed == (1, 2)
    assert letters.continuations == {0: (3,), 1: (4,)}
    assert word.fed == (1, 2, 3)
    assert word.continuations == {2: (3, 5)}


def test_what_is_too_long_loses_its_beginning() -> None:
    [found] = plan_passes([([1, 2, 3, 4], [5, 6])], 3)
    assert found.fed == (3, 4, 5)

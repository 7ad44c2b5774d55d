"""Comparing answers, on cases worked out by hand."""

from __future__ import annotations

import pytest

from browser_harness.parity import choose_texts, first_difference, judge_greedy, round_trip
from browser_harness.plan import block_rows
from browser_harness.prompts import repeat
from browser_harness.speed import decode_run
from manifests.page import GenerateResult
from manifests.reference import Greedy, ScoredText


@pytest.mark.parametrize(
    ("expected", "got", "index"),
    [
        ((1, 2, 3), (1, 2, 3), None),
        ((1, 2, 3), (1, 5, 3), 1),
        ((1, 2, 3), (1, 2), 2),
        ((1,), (1, 2), 1),
        ("ab", "ab", None),
        ((), (), None),
    ],
)
def test_first_difference(
    expected: tuple[int, ...], got: tuple[int, ...], index: int | None
) -> None:
    assert first_difference(expected, got) == index


@pytest.mark.parametrize(
    ("tokens", "margin", "outcome", "equal"),
    [
        ((5, 6, 7), 0.5, "exact", 3),
        ((5, 9, 7), 0.5, "diverged", 1),
        ((5, 9, 7), 0.0009, "near-tie", 1),
        # Neither the reference's choice nor its runner-up: no tie, however near those two.
        ((5, 8, 7), 0.0009, "diverged", 1),
        ((5, 9, 7), 0.001, "diverged", 1),
        ((5, 6), 0.5, "exact", 2),
    ],
)
def test_greedy(tokens: tuple[int, ...], margin: float, outcome: str, equal: int) -> None:
    case = Greedy(
        name="n",
        language="en",
        prompt=(1,),
        tokens=(5, 6, 7),
        runners_up=(1, 9, 1),
        margins=(9.0, margin, 9.0),
    )
    got = GenerateResult(tokens=tokens, text="t", at_ms=tuple(map(float, tokens)))
    check = judge_greedy(case, got)
    assert (check.outcome, check.equal_tokens, check.tokens) == (outcome, equal, len(tokens))
    assert check.margin == (None if outcome == "exact" else margin)


def test_few_texts_are_still_of_every_language() -> None:
    texts = [
        ScoredText(name=name, language=language, ids=(1, 2))
        for name, language in [("a", "en"), ("b", "en"), ("c", "ar"), ("d", "en"), ("e", "ar")]
    ]
    assert [text.name for text in choose_texts(texts, 3)] == ["a", "c", "b"]
    assert len(choose_texts(texts, None)) == 5


def test_decode_times_are_differences() -> None:
    result = GenerateResult(tokens=(1, 2, 3), text="", at_ms=(100.0, 130.0, 155.0))
    assert decode_run((3,) * 16, 1, result).ms == (30.0, 25.0)


def test_prompts_repeat_to_any_length() -> None:
    assert repeat((1, 2, 3), 7) == (1, 2, 3, 1, 2, 3, 1)
    assert repeat((1, 2, 3), 2) == (1, 2)


def test_blocks_of_logits_stay_small() -> None:
    assert block_rows(49152) == 16
    assert block_rows(262144) == 16
    assert block_rows(1 << 20) == 4
    assert block_rows(1 << 30) == 1


@pytest.mark.parametrize(
    ("text", "expected", "got", "outcome"),
    [
        ("ﻻ", "ﻻ", "ﻻ", "whole"),
        # A tokenizer that normalises: the browser's does the same.
        ("ﻻ", "لا", "لا", "same"),
        ("ﻻ", "لا", "ﻻ", "differs"),
        ("ﻻ", "ﻻ", "لا", "differs"),
    ],
)
def test_what_comes_back(text: str, expected: str, got: str, outcome: str) -> None:
    assert round_trip(text, expected, got) == outcome

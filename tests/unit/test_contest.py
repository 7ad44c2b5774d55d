"""The benchmarks' own arithmetic, on samples whose figures are worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.bench.contest.sides import GPU_SIDES, cpu_sides
from tests.bench.contest.table import Result, ratios_table, results_table
from tests.bench.contest.visits import Facts, Visit
from tests.bench.greedy import NearTie, Said, judge

SIDES = cpu_sides(2)[:3]


def _visit(step: float, *, first: float = 100.0, cold: float | None = 4000.0) -> Visit:
    """Five tokens, ``step`` ms apart."""
    times = tuple(first + step * number for number in range(5))
    answer = None if cold is None else 150.0
    return Visit(
        cold_ms=cold,
        warm_ms=1000.0,
        answer_ms=answer,
        prompt_ms=(3 * first, first, first),
        at_ms=times,
    )


def _result(number: int, steps: tuple[float, ...], facts: Facts, **visit: Any) -> Result:
    visits = tuple(_visit(step, **visit) for step in steps)
    return Result(name=SIDES[number].name, threads=2, facts=facts, visits=visits)


def test_ratios_are_taken_within_a_round_and_above_one_where_ours_is_faster() -> None:
    # The second round is slow for both: each ratio is 3 all the same.
    ours = _result(0, (10.0, 40.0), Facts(peak_bytes=1))
    other = _result(1, (30.0, 120.0), Facts(peak_bytes=1), first=250.0, cold=2000.0)
    native = _result(2, (5.0, 20.0), Facts(peak_bytes=1), cold=None)
    lines = ratios_table([ours, other, native], [side.name for side in SIDES])
    assert lines[2] == (
        "| against transformers.js wasm q8 | 2 | **3.00** (3.00-3.00) | **2.50** (2.50-2.50) "
        "| **1.00** (1.00-1.00) | **0.50** (0.50-0.50) | **1.00** (1.00-1.00) |"
    )
    assert "**0.50** (0.50-0.50) | **1.00** (1.00-1.00) | – | – |" in lines[3]


def test_a_row_has_speeds_and_a_worse_perplexity_is_marked() -> None:
    ours = _result(0, (20.0,), Facts(download_bytes=2_500_000, peak_bytes=9_000_000, perplexity=20))
    worse = _result(1, (20.0,), Facts(peak_bytes=1, perplexity=20.3))
    silent = _result(2, (20.0,), Facts(peak_bytes=1))
    first, second, third = results_table(SIDES, [ours, worse, silent], 36)[2:]
    assert first == (
        "| tabwright wasm-q4 | 2 | 2.5 MB | 4.00 s | 1.00 s | 150 ms | 100 ms | 360 "
        "| 50 (50-50) | 9 MB | 20.00 |"
    )
    assert second.endswith("| 20.30† |")
    assert third.endswith("| n/a |")


def test_what_a_token_asks_of_the_gpu_is_a_column() -> None:
    calls = {"dispatches": 1277.0, "submits": 19.0, "bind_groups": 0.0, "read_bytes": 8.0}
    found = [
        Result(
            name=side.name,
            threads=1,
            facts=Facts(peak_bytes=1, calls=calls),
            visits=(_visit(7000.0),),
        )
        for side in GPU_SIDES
    ]
    assert results_table(GPU_SIDES, found, 5)[2].endswith("| – | 1,277 | 19 | 0 | 8 |")


#: After each of five tokens: the second choice is 0.01, 0.5 or more behind.
_ROWS = torch.tensor(
    [
        [9.0, 0.0, 0.0, 0.0],
        [5.0, 4.99, 0.0, 0.0],
        [5.0, 4.5, 0.0, 0.0],
        [5.0, 4.99, 4.98, 0.0],
        [0.0, 0.0, 0.0, 9.0],
    ]
)


@pytest.mark.parametrize(
    ("tokens", "near", "diverged"),
    [
        ((0, 0, 0, 0), [], []),
        ((0, 1, 0, 0), [1], []),
        ((0, 0, 1, 0), [], [2]),
        # The third choice is no near-tie, however near.
        ((0, 0, 0, 2), [], [3]),
    ],
)
def test_a_near_tie_is_told_from_a_divergence(
    tokens: tuple[int, ...], near: list[int], diverged: list[int]
) -> None:
    def model(input_ids: torch.Tensor) -> Any:
        assert input_ids.tolist() == [[7, *tokens]]
        return SimpleNamespace(logits=_ROWS[None])

    # The browser's logits are 0.1 off in one place.
    apart = _ROWS.numpy() + np.eye(5, 4, dtype=np.float32) * 0.1
    outcome = judge(model, [(7,)], Said((tokens,), (apart,), 1.0))
    assert outcome.tokens == 4
    assert outcome.apart == pytest.approx(0.1, rel=1e-4)
    assert [tie.position for tie in outcome.near_ties] == near
    assert [tie.position for tie in outcome.diverged] == diverged
    assert all(isinstance(tie, NearTie) for tie in outcome.near_ties)

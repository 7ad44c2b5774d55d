"""Growth, steps and pauses: against series that were made by a known rule."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from browser_harness.judge.growth import BLOCK, Shape, shape, sweep_shape
from manifests.sweeps import ContextSweep

COUNT = 1024
AT = np.arange(COUNT, dtype=np.float64)
#: Spreads of a token's time as they are seen: 5 % on a quiet machine, 15 % on a busy one.
SPREADS = (0.05, 0.15)


def series(rule: NDArray[np.floating], spread: float, seed: int) -> tuple[float, ...]:
    noise = np.random.default_rng(seed).normal(0, spread, len(rule))
    return tuple((rule * np.exp(noise)).tolist())


def told(rule: NDArray[np.floating], spread: float, seed: int) -> Shape:
    found = shape(series(rule, spread, seed))
    assert found is not None
    return found


@pytest.mark.parametrize("spread", SPREADS)
def test_a_flat_series_is_left_alone(spread: float) -> None:
    found = [told(np.full(COUNT, 30.0), spread, seed) for seed in range(100)]
    # One in a hundred intervals of 99 % misses nothing, on one side or the other.
    assert sum(not each.interval[0] <= 0 <= each.interval[1] for each in found) <= 6
    assert sum(each.grows for each in found) <= 3
    assert sum(len(each.steps) for each in found) <= 5
    assert not any(each.pauses for each in found)


@pytest.mark.parametrize("spread", SPREADS)
def test_growth_is_measured(spread: float) -> None:
    # 0.4 of the start more after 1,000 samples.
    found = [told(30 * (1 + 0.4 * AT / 1000), spread, seed) for seed in range(50)]
    assert all(each.grows for each in found)
    assert np.median([each.per_thousand for each in found]) == pytest.approx(0.4, abs=0.02)
    assert sum(not each.interval[0] <= 0.4 <= each.interval[1] for each in found) <= 5
    assert np.median([each.start for each in found]) == pytest.approx(30, rel=0.01)


def test_a_copied_cache_grows_where_a_kept_one_does_not() -> None:
    """The arithmetic of a loop that copies: every position more is read and written once more."""
    kept = 20 + 0.002 * AT
    copied = kept + 3 * 0.002 * AT
    slow, fast = told(copied, 0.05, 1), told(kept, 0.05, 2)
    assert slow.interval[0] > fast.interval[1]
    assert slow.per_thousand == pytest.approx(0.4, abs=0.05)
    assert fast.per_thousand == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("ratio", [0.8, 1.2, 1.5])
def test_a_step_is_found_and_is_not_growth(ratio: float) -> None:
    rule = np.where(AT < 600, 30.0, 30.0 * ratio)
    for seed in range(20):
        found = told(rule, 0.05, seed)
        (step,) = found.steps
        assert abs(step.at - 600) <= BLOCK
        assert step.ratio == pytest.approx(ratio, rel=0.05)
        assert not found.grows


def test_two_steps_and_the_growth_between_them() -> None:
    rule = 30 * (1 + 0.2 * AT / 1000)
    rule[300:] += 10
    rule[700:] += 10
    found = told(rule, 0.05, 5)
    assert [round(step.at / 100) for step in found.steps] == [3, 7]
    assert found.interval[0] <= 0.2 <= found.interval[1]


def test_pauses_are_single_samples() -> None:
    rule = np.full(COUNT, 30.0)
    rule[[256, 512]] = 300
    found = told(rule, 0.05, 3)
    assert [pause.at for pause in found.pauses] == [256, 512]
    assert found.pauses[0].times == pytest.approx(10, rel=0.2)
    assert (found.steps, found.grows) == ((), False)


def test_too_short_a_series_tells_nothing() -> None:
    assert shape((30.0,) * (8 * BLOCK - 1)) is None
    assert shape((30.0,) * (8 * BLOCK)) is not None


def test_a_sweep_tells_what_happens_in_every_page() -> None:
    """A pause of one page is the machine's; one at the same place in both is the loop's."""
    first, second = (list(series(np.full(COUNT, 30.0), 0.02, seed)) for seed in (1, 2))
    first[100] = second[300] = 400.0
    first[612] = second[612] = 400.0
    sweep = ContextSweep(
        prompt_tokens=16, length=2000, warmup=4, runs=(tuple(first), tuple(second[:1000]))
    )
    found = sweep_shape(sweep)
    assert found is not None
    # Of the position, not of the place in the run.
    assert [pause.at for pause in found.pauses] == [612 + 16 + 1]

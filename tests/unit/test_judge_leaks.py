"""Leaks: worked by hand, and seeded in noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from browser_harness.judge.leaks import growths
from browser_harness.judge.metrics import METRICS
from manifests.sweeps import LeakCycle, LeakSweep, Sweeps
from tests.unit.reports import wasm_target

MB = 1_000_000


def sweep(pss: Sequence[float], gpu: Sequence[int] | None = None, warmup: int = 2) -> LeakSweep:
    buffers = gpu or [0] * len(pss)
    cycles = tuple(
        LeakCycle(gpu_buffers=held, renderer_pss=int(size), gpu_process_pss=30 * MB)
        for size, held in zip(pss, buffers, strict=True)
    )
    return LeakSweep(warmup=warmup, cycles=cycles)


def test_a_slope_worked_by_hand() -> None:
    # 1, 3, 2, 4 at 0 to 3: slope 0.8, residuals -0.3, 0.9, -0.9, 0.3 of which s^2 = 1.8 / 2,
    # standard error sqrt(0.9 / 5) = 0.42426; Student's t of 2 degrees at 99.5 % is 9.92484.
    found = {
        each.name: each for each in growths(sweep([9 * MB] * 2 + [MB, 3 * MB, 2 * MB, 4 * MB]))
    }
    renderer = found["renderer PSS"]
    assert renderer.per_cycle == pytest.approx(0.8 * MB)
    assert renderer.interval.high - renderer.per_cycle == pytest.approx(
        9.92484 * 424264.07, rel=1e-5
    )
    assert not renderer.leaks
    # What the page did not tell is not judged.
    assert set(found) == {"GPU buffers", "renderer PSS", "GPU process PSS"}


def test_one_forgotten_buffer_a_cycle_is_a_leak() -> None:
    found = growths(sweep([100 * MB] * 8, [0, 0, 64, 128, 192, 256, 320, 384]))
    assert [(each.name, each.per_cycle) for each in found if each.leaks] == [("GPU buffers", 64)]


def test_a_seeded_leak_is_caught_in_noise_and_nothing_else_is() -> None:
    caught = false = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(0, 3 * MB, 12)
        steady = (300 * MB + noise).tolist()
        growing = [size + 5 * MB * cycle for cycle, size in enumerate(steady)]
        caught += any(each.leaks for each in growths(sweep(growing)))
        false += any(each.leaks for each in growths(sweep(steady)))
    assert caught >= 198
    # One end of a 99 % interval: 1 in 200 by chance.
    assert false <= 5


def test_warm_up_is_no_leak() -> None:
    rising = [100 * MB, 200 * MB, *[300 * MB] * 8]
    assert not any(each.leaks for each in growths(sweep(rising)))
    assert any(each.leaks for each in growths(sweep([n * 10 * MB for n in range(10)])))


def test_fewer_than_four_cycles_tell_nothing() -> None:
    assert growths(sweep([100 * MB] * 5)) == ()


def test_too_few_cycles_are_no_proof_of_no_leak() -> None:
    def read(cycles: int) -> float | None:
        found = Sweeps(leaks=sweep([100 * MB] * cycles))
        return METRICS["leaks"].read(wasm_target().model_copy(update={"sweeps": found}))

    # Two of them only warm up.
    assert read(2 + 3) is None
    assert read(2 + 4) == 0

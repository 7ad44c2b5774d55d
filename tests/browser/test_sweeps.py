"""The sweeps, against a page whose every answer is known beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from browser_harness.judge.leaks import growths
from browser_harness.judge.metrics import METRICS
from browser_harness.launch import Session
from browser_harness.measure import measure
from browser_harness.plan import PLANS, Options
from browser_harness.sweeps.asked import NETWORKS, Asked
from manifests.report import TargetReport
from tests.browser.conftest import FAKE_PAGE
from tests.browser.fake_bundle import FILES, write_bundle

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

WEIGHTS = len(FILES["onnx/model_q4.onnx_data"])
PAGE_BYTES = sum(path.stat().st_size for path in FAKE_PAGE.iterdir())
PLAN = replace(PLANS["full"], warm_loads=1, sampling_seconds=0.0, sweep_loads=2, sweep_rounds=2)


def swept(folder: Path, target: str, *asked: Asked, context: int = 64) -> TargetReport:
    write_bundle(folder, (target,), context_length=context)
    options = Options(page=FAKE_PAGE, threads=1, plans={"full": PLAN}, sweeps=asked)
    return measure(folder, options=options).targets[target]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TargetReport:
    asked = (Asked("context"), Asked("prompts"), Asked("loads", "slow-4g"), Asked("leaks", "4"))
    return swept(tmp_path_factory.mktemp("swept"), "wasm-q4", *asked)


def test_context_is_decoded_to_its_end_in_each_page(whole: TargetReport) -> None:
    assert whole.failure is None
    assert whole.sweeps is not None
    context = whole.sweeps.context
    assert context is not None
    # Position 17 is the first token after a prompt of 16; the clock starts with it.
    assert (context.prompt_tokens, context.length) == (16, 64)
    assert context.runs == ((2.0,) * (64 - 16),) * 2


def test_prompts_double_up_to_the_context(whole: TargetReport) -> None:
    assert whole.sweeps is not None
    # One position is left for the token.
    assert [sample.prompt_tokens for sample in whole.sweeps.prompts] == [16, 32, 63]
    assert all(sample.ms == (10.0,) * 3 for sample in whole.sweeps.prompts)
    assert {sample.warmup for sample in whole.sweeps.prompts} == {1}


def test_each_condition_finds_what_it_says(whole: TargetReport) -> None:
    assert whole.sweeps is not None
    loads = whole.sweeps.loads
    assert [load.condition for load in loads] == [
        *("cold", "http-cache", "opfs", "offline"),
        *("cold", "http-cache", "opfs", "offline", "throttled"),
    ]
    wire: dict[str, set[int]] = {}
    for load in loads:
        wire.setdefault(load.condition, set()).add(load.bytes_on_wire)
    assert wire == {
        "cold": {PAGE_BYTES + WEIGHTS},
        # The page is asked after and found unchanged; the weights were forgotten.
        "http-cache": {WEIGHTS},
        "opfs": {0},
        "offline": {0},
        "throttled": {PAGE_BYTES + WEIGHTS},
    }
    assert [load.network for load in loads] == [None] * 8 + ["slow-4g"]


def test_a_slow_network_is_slow(whole: TargetReport) -> None:
    """What is emulated reaches the page: one round trip and the bits are the least it takes."""
    assert whole.sweeps is not None
    (slow,) = [load for load in whole.sweeps.loads if load.condition == "throttled"]
    network = NETWORKS["slow-4g"]
    assert slow.timings.fetch_ms >= network.latency_ms + 8000 * WEIGHTS / network.down_bits


def test_a_seeded_leak_is_caught(tmp_path: Path, whole: TargetReport) -> None:
    assert whole.sweeps is not None
    steady = whole.sweeps.leaks
    assert steady is not None
    assert len(steady.cycles) == 2 + 4
    assert {cycle.gpu_buffers for cycle in steady.cycles} == {33}
    leaky = swept(tmp_path, "wasm-leaks", Asked("leaks", "4"))
    assert [METRICS["leaks"].read(target) for target in (whole, leaky)] == [0, 1]
    assert leaky.sweeps is not None
    assert leaky.sweeps.leaks is not None
    found = {each.name: each for each in growths(leaky.sweeps.leaks)}
    assert found["GPU buffers"].leaks
    assert found["GPU buffers"].per_cycle == pytest.approx(1000)
    assert not found["WASM heap"].leaks


def test_growth_and_a_step_are_told_apart_from_each_other_and_from_neither(tmp_path: Path) -> None:
    # 2.017 ms at position 17, the first; 1 ms more a thousand positions later.
    expected = {"wasm-copies": (1 / 2.017, 0), "wasm-steps": (0, 1), "wasm-q4": (0, 0)}
    for target, (growth, steps) in expected.items():
        found = swept(tmp_path / target, target, Asked("context"), context=1024)
        assert METRICS["context_growth"].read(found) == pytest.approx(growth, abs=0.01)
        assert METRICS["context_steps"].read(found) == steps


def test_a_time_limit_cuts(tmp_path: Path) -> None:
    write_bundle(tmp_path, ("wasm-q4",), context_length=4096)
    short = replace(PLAN, sweep_seconds=0.2, sweep_visits=1)
    options = Options(
        page=FAKE_PAGE, threads=1, plans={"full": short}, sweeps=(Asked("context", "2000"),)
    )
    target = measure(tmp_path, options=options).targets["wasm-q4"]
    assert target.sweeps is not None
    assert target.sweeps.context is not None
    # The fake page makes a token every 2 ms of its own clock.
    assert [len(run) for run in target.sweeps.context.runs] == [99]
    assert target.sweeps.context.length == 2000


def test_a_failing_sweep_is_told_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[tuple[int, int]] = []
    close = Session.close_tabs

    async def counted(session: Session) -> None:
        before = len(session._left())
        await close(session)
        left.append((before, len(session._left())))

    monkeypatch.setattr(Session, "close_tabs", counted)
    target = swept(tmp_path, "wasm-clings", Asked("loads"), Asked("context"))
    assert target.failure is None
    assert any(note.startswith("sweep 'loads' failed: page-failure") for note in target.notes)
    assert target.sweeps is not None
    assert target.sweeps.context is not None
    assert target.sweeps.failed == ("loads",)
    assert METRICS["failed_sweeps"].read(target) == 1
    # The page that could not forget is not open beside the context sweep's.
    assert left == [(1, 0)]


def test_a_target_that_failed_is_not_swept(tmp_path: Path) -> None:
    target = swept(tmp_path, "wasm-refuses", Asked("context"))
    assert target.failure is not None
    assert target.sweeps is None

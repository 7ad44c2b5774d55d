"""The measuring, against a page whose every answer is known beforehand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from browser_harness import launch as harness_launch
from browser_harness import profiles
from browser_harness.answers import ReferenceMismatch
from browser_harness.browsers import BrowserMissing
from browser_harness.judge import METRICS
from browser_harness.launch import BrowserFailed
from browser_harness.measure import PageNotBuilt, TargetAbsent, check_environment, measure
from browser_harness.plan import PLANS, Options, Plan, PlanName
from manifests.errors import BadDocument, NotFound
from manifests.report import Report, TargetReport
from tests.browser.conftest import FAKE_PAGE
from tests.browser.fake_bundle import FILES, write_bundle, write_reference

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

#: Quick, but for one deadline that an endless loop has to run into.
QUICK: MappingProxyType[PlanName, Plan] = MappingProxyType(
    {
        "full": replace(PLANS["full"], warm_loads=2, load_seconds=15.0),
        "software": replace(PLANS["software"], load_seconds=2.0),
    }
)
OPTIONS = Options(page=FAKE_PAGE, adapter="software", threads=1, plans=QUICK)


def measured(tmp_path: Path, *targets: str) -> Report:
    manifest = write_bundle(tmp_path / "bundle", targets)
    write_reference(tmp_path / "reference.json", manifest)
    return measure(tmp_path / "bundle", tmp_path / "reference.json", options=OPTIONS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TargetReport:
    """A target that was measured without a fault."""
    return measured(tmp_path_factory.mktemp("whole"), "wasm-q4").targets["wasm-q4"]


def test_full_plan(whole: TargetReport) -> None:
    assert whole.failure is None
    # The fake page fetches the weights once, and stores that it has them.
    page_bytes = sum(path.stat().st_size for path in FAKE_PAGE.iterdir())
    assert whole.cold[0].bytes_on_wire == page_bytes + len(FILES["onnx/model_q4.onnx_data"])
    assert [sample.bytes_on_wire for sample in whole.warm] == [0, 0]
    assert whole.cold[0].first_token_ms == 10
    # 256 tokens do not fit a context of 64, nor does the token after 64.
    assert [sample.prompt_tokens for sample in whole.prefill] == [16, 16]
    assert whole.prefill[0].ms == (10.0,) * 2
    # A page that takes the same time whenever it is asked is opened no third time.
    assert [run.visit for run in whole.decode] == [0, 1]
    assert whole.decode[0].prompt == whole.prefill[0].prompt
    assert whole.decode[0].ms == (2.0,) * (64 - 16 - 1)
    assert any("context of 64" in note for note in whole.notes)


def test_parity_against_known_answers(whole: TargetReport) -> None:
    parity = whole.parity
    assert parity is not None
    assert (parity.runtime.positions, parity.runtime.max_abs_logit) == (47, 0)
    assert parity.runtime.top1 == 1
    assert {name: found.positions for name, found in parity.runtime_by_language.items()} == {
        "en": 43,
        "ar": 4,
    }
    assert [(check.name, check.equal, check.first_difference) for check in parity.tokens] == [
        ("right", True, None),
        ("wrong", False, 1),
    ]
    assert parity.chats[0].equal
    long, short = parity.greedy
    assert (long.outcome, long.equal_tokens, long.tokens) == ("exact", 6, 6)
    assert (short.outcome, short.equal_tokens, short.margin) == ("diverged", 4, 2.5)


def test_a_wrong_logit_is_seen(tmp_path: Path) -> None:
    parity = measured(tmp_path, "wasm-bent").targets["wasm-bent"].parity
    assert parity is not None
    assert parity.runtime.max_abs_logit == 0.5
    assert parity.runtime.kl_max > 0


def test_memory_is_watched_through_the_phases(whole: TargetReport) -> None:
    memory = whole.memory
    assert memory is not None
    assert memory.rest is not None
    assert memory.rest.phase == "rest"
    assert memory.rest.renderer_pss > 10 << 20
    assert memory.peak.renderer_pss >= memory.rest.renderer_pss
    assert (memory.rest.js_heap, memory.rest.wasm_heap, memory.rest.gpu_buffers) == (11, 22, 33)
    assert memory.peak.gpu_buffers == 44
    assert memory.timeline[-1] == memory.rest


def test_a_failing_target_does_not_stop_the_others(tmp_path: Path) -> None:
    report = measured(tmp_path, "wasm-refuses", "webgpu-loops", "wasm-q4")
    refused = report.targets["wasm-refuses"].failure
    assert refused is not None
    assert refused.code == "chunk-corrupt"
    looped = report.targets["webgpu-loops"].failure
    assert looped is not None
    assert looped.code == "page-timeout"
    assert report.targets["wasm-q4"].failure is None
    assert report.targets["wasm-q4"].parity is not None


def test_memory_is_kept_of_a_target_that_failed(tmp_path: Path) -> None:
    # Long enough for a look or two before the deadline.
    target = measured(tmp_path, "webgpu-loops").targets["webgpu-loops"]
    assert target.failure is not None
    assert target.memory is not None
    assert target.memory.rest is None
    assert {point.phase for point in target.memory.timeline} >= {"cold load"}
    assert METRICS["peak_memory_bytes"].read(target)
    assert METRICS["rest_memory_bytes"].read(target) is None


def test_a_browser_that_does_not_start_costs_its_own_target_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, starts = harness_launch._start, []

    async def fails_second(*arguments: Any, **options: Any) -> Any:
        starts.append(arguments)
        if len(starts) == 2:
            raise BrowserFailed(Path("chromium"), "no memory")
        return await start(*arguments, **options)

    monkeypatch.setattr(harness_launch, "_start", fails_second)
    report = measured(tmp_path, "wasm-q4", "wasm-bent", "wasm-noisy")
    # A manifest names its targets in alphabetical order.
    failures = {name: target.failure for name, target in report.targets.items()}
    failure = failures.pop("wasm-noisy")
    assert failure is not None
    assert failure.code == "browser-failed"
    assert failures == {"wasm-bent": None, "wasm-q4": None}
    assert report.targets["wasm-noisy"].target_bytes > 0


def test_a_profile_that_stays_is_a_note_on_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles.Profile, "_reap", reap_and_complain(profiles.Profile._reap))
    target = measured(tmp_path, "wasm-q4").targets["wasm-q4"]
    assert target.failure is None
    assert target.parity is not None
    assert any("profile-left" in note for note in target.notes)


def reap_and_complain(
    reap: Callable[[profiles.Profile], str],
) -> Callable[[profiles.Profile], str]:
    def complain(profile: profiles.Profile) -> str:
        return reap(profile) or "something keeps it"

    return complain


def test_the_page_says_what_is_software_and_what_else_is_worth_a_note(tmp_path: Path) -> None:
    target = measured(tmp_path, "webgpu-emulated").targets["webgpu-emulated"]
    assert target.adapter is None
    assert target.software_adapter
    assert target.notes.count("the page's own note") == 1
    assert "software adapter: its speed is not judged" in target.notes
    assert target.jspi


def test_software_plan_computes_nothing_twice(tmp_path: Path) -> None:
    target = measured(tmp_path, "webgpu-q4").targets["webgpu-q4"]
    assert target.failure is None
    # The shortest greedy prompt follows the loads, and serves three purposes.
    assert [(sample.prompt_tokens, sample.ms) for sample in target.prefill] == [(2, (10.0,))]
    assert [(run.prompt_tokens, run.warmup, run.ms) for run in target.decode] == [
        (2, 1, (2.0, 2.0, 2.0))
    ]
    assert target.parity is not None
    assert [(check.name, check.tokens, check.outcome) for check in target.parity.greedy] == [
        ("short", 4, "exact")
    ]
    assert target.parity.runtime.positions == 16 + 4 + 3
    assert any("23 tokens were teacher-forced" in note for note in target.notes)


def test_without_a_reference(tmp_path: Path) -> None:
    write_bundle(tmp_path, ("wasm-q4",))
    report = measure(tmp_path, options=OPTIONS)
    assert report.reference is None
    assert report.targets["wasm-q4"].parity is None
    assert report.targets["wasm-q4"].prefill[0].prompt_tokens == 16


def test_the_report_says_what_was_run(tmp_path: Path) -> None:
    report = measured(tmp_path, "wasm-noisy")
    assert report.browser is not None
    assert re.fullmatch(r"\d+(\.\d+)+", report.browser.version)
    assert report.targets["wasm-noisy"].console == ("a kernel complained",) * 3
    assert report.bundle.bytes == sum(len(data) for data in FILES.values())
    assert report.bundle.bytes_by_kind == {
        "linear": 700,
        "float": 200,
        "default zero points, padding": 100,
        "graph": 60,
        "tokenizer": 4,
        "runtime": 300,
        "page": 15 + 50,
    }
    assert Report.parse(report.to_json(), tmp_path) == report


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("source_digest", "checkpoint"),
        ("tokenizer_digest", "tokenizer"),
        ("logits_sha256", "safetensors was changed"),
    ],
)
def test_foreign_reference_is_refused(tmp_path: Path, field: str, what: str) -> None:
    path = tmp_path / "reference.json"
    reference = write_reference(path, write_bundle(tmp_path, ("wasm-q4",)))
    path.write_text(reference.model_copy(update={field: "f" * 64}).to_json(), "utf-8")
    with pytest.raises(ReferenceMismatch, match=what) as caught:
        measure(tmp_path, path, options=OPTIONS)
    assert (caught.value.code, caught.value.exit_status) == ("reference-mismatch", 3)


def test_reference_for_other_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    reference = write_reference(path, write_bundle(tmp_path, ("wasm-q4",)))
    other = reference.answers["q4"].model_copy(update={"weights_digest": "f" * 64})
    path.write_text(reference.model_copy(update={"answers": {"q4": other}}).to_json(), "utf-8")
    with pytest.raises(ReferenceMismatch, match="'q4'"):
        measure(tmp_path, path, options=OPTIONS)


def test_logits_elsewhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    reference = write_reference(path, write_bundle(tmp_path, ("wasm-q4",)))
    climbing = {"logits_file": f"../{tmp_path.name}/reference.safetensors"}
    path.write_text(reference.model_copy(update=climbing).to_json(), "utf-8")
    with pytest.raises(NotFound, match="logits"):
        measure(tmp_path, path, options=OPTIONS)


def test_reference_without_logits_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    reference = write_reference(path, write_bundle(tmp_path, ("wasm-q4",)))
    other = reference.answers["q4"].model_copy(update={"logits": {}})
    path.write_text(reference.model_copy(update={"answers": {"q4": other}}).to_json(), "utf-8")
    with pytest.raises(BadDocument, match="no logits for 'first'"):
        measure(tmp_path, path, options=OPTIONS)


def test_unknown_target_and_unbuilt_page(tmp_path: Path) -> None:
    write_bundle(tmp_path, ("wasm-q4",))
    with pytest.raises(TargetAbsent, match="webgpu-q8"):
        measure(tmp_path, targets=("webgpu-q8",), options=OPTIONS)
    unbuilt = replace(OPTIONS, page=tmp_path / "nothing")
    with pytest.raises(PageNotBuilt):
        measure(tmp_path, options=unbuilt)
    with pytest.raises(PageNotBuilt):
        check_environment(unbuilt, on_gpu=False)
    no_browser = replace(OPTIONS, browser=tmp_path / "none")
    for refuse in (
        lambda: measure(tmp_path, options=no_browser),
        lambda: check_environment(no_browser, on_gpu=False),
    ):
        with pytest.raises(BrowserMissing):
            refuse()
    check_environment(OPTIONS, on_gpu=True)

"""The work of a token, in a real Chromium, against what the manifest says.

The bundle, the runtime and the kernels are those that ship; the adapter is SwiftShader.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from browser_harness.measure import measure
from browser_harness.plan import PAGE, PLANS, Options
from exporter.pipeline import export
from manifests.report import Report
from targets import find_targets
from tests.families import Tiny, write_family

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

LAYERS = 2
PLAN = replace(PLANS["software"], bandwidth_bytes=1 << 20, gpu_time_tokens=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    settings = {"tie_word_embeddings": False, "num_hidden_layers": LAYERS}
    checkpoint = write_family(Tiny("llama", settings), folder)
    targets = find_targets(["webgpu-q4", "wasm-q4"])
    export(checkpoint, targets, folder / "bundle", runtime=PAGE.parent / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def report(bundle: Path) -> Report:
    options = Options(adapter="software", threads=1, plans={"full": PLAN, "software": PLAN})
    return measure(bundle, options=options)


def test_graphs_are_counted_as_graphs(bundle: Path, report: Report) -> None:
    graphs = list((bundle / "onnx").glob("*.onnx"))
    # The one that stays on the GPU is among them.
    assert len(graphs) == 3
    assert report.bundle.bytes_by_kind["graph"] == sum(path.stat().st_size for path in graphs)


def test_calls_and_gpu_time(report: Report) -> None:
    target = report.targets["webgpu-q4"]
    assert target.failure is None
    (run,) = target.decode
    assert run.calls is not None
    # The graph that stays on the GPU makes no bind group, and 8 bytes of each token are read.
    assert run.calls.bind_groups == 0
    assert run.calls.read_bytes == 8 * len(run.ms)
    # Nine dispatches a layer at the least, and as many for every token.
    assert run.calls.dispatches >= 9 * LAYERS * len(run.ms)
    assert run.calls.dispatches % len(run.ms) == 0
    time = target.gpu_time
    assert time is not None
    assert time.tokens == 2
    assert time.passes % time.tokens == 0
    assert time.gpu_ms > 0


def test_gpu_buffers_are_what_the_manifest_says(report: Report) -> None:
    """Two that share nothing: sizes worked out from the ledger, and hooks on createBuffer."""
    ledger = report.targets["webgpu-q4"].ledger
    assert ledger is not None
    assert ledger.gpu_weights == ledger.predicted.weights
    assert ledger.gpu_states == ledger.predicted.states
    assert ledger.gpu_activations is not None
    assert ledger.gpu_other is not None
    # The sum of what is listed is what was counted as buffers came and went.
    memory = report.targets["webgpu-q4"].memory
    assert memory is not None
    assert memory.rest is not None
    assert ledger.held == memory.rest.gpu_buffers
    # What a token leaves behind: the logits, and a row of the widest tensor, at the least.
    assert ledger.gpu_activations > 0


def test_on_a_cpu_memory_is_read(report: Report) -> None:
    target = report.targets["wasm-q4"]
    assert target.failure is None
    assert target.bandwidth is not None
    assert (target.bandwidth.kind, target.bandwidth.threads) == ("wasm-read", 1)
    assert min(target.bandwidth.ms) > 0
    assert [run.calls for run in target.decode] == [None]
    assert target.gpu_time is None
    assert target.ledger is not None
    assert target.ledger.gpu_weights is None


def test_texts_are_counted_by_the_page(report: Report) -> None:
    first, second = (target.texts for target in report.targets.values())
    assert first == second
    english, arabic = first
    # Article 1 by hand: 30 and 19 words.
    assert (english.language, english.words) == ("en", 30)
    assert (arabic.language, arabic.words) == ("ar", 19)
    assert 0 < english.tokens <= english.characters

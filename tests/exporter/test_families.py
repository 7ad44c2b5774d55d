"""Every family in onnxruntime against transformers in fp32 on the bundle's own weights.

The text is three times as long as the tiny models' sliding windows, and is read at once
and in steps.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from exporter.graph.families import FAMILIES
from exporter.graph.rotary import SCALINGS, Rotary
from exporter.pipeline import export
from exporter.reference.model import load_bundle
from manifests.bundle import read_manifest
from manifests.errors import TabwrightError
from targets import TARGETS
from tests.checkpoints import edit_config
from tests.decoder import Decoder
from tests.families import FAMILY_CASES, IN_BROWSER, PLAIN, WINDOW, write_family
from tests.made_once import exported_once, made_once

Factory = Callable[[str], Path]
IDS = np.random.default_rng(7).integers(3, 512, 3 * WINDOW)
STEPS = (slice(0, 10), slice(10, 37), *(slice(i, i + 1) for i in range(37, len(IDS))))
BOTH = (TARGETS["webgpu-q4"], TARGETS["wasm-q4"])


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    def write(case: str, folder: Path) -> Path:
        return write_family(FAMILY_CASES[case], folder)

    return made_once(write, tmp_path_factory)


@pytest.fixture(scope="module")
def bundle_of(
    checkpoint_of: Factory, page: Path, tmp_path_factory: pytest.TempPathFactory
) -> Factory:
    return exported_once(checkpoint_of, BOTH, page, tmp_path_factory)


def _expected(checkpoint: Path, bundle: Path, target: str) -> NDArray[np.float32]:
    manifest = read_manifest(bundle)
    weights = manifest.weights[manifest.targets[target].weights]
    model = load_bundle(checkpoint, bundle, weights, "cpu")
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(torch.from_numpy(IDS[None])).logits[0].numpy()
    return logits


def _both_ways(bundle: Path, target: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of one pass over the text, and of the cache continued."""
    decoder = Decoder(bundle, target)
    stepped = np.concatenate([decoder.step(IDS[step], keep=0) for step in STEPS])
    return Decoder(bundle, target).step(IDS, keep=0), stepped


@pytest.mark.parametrize("case", FAMILY_CASES)
def test_logits_equal_transformers(case: str, checkpoint_of: Factory, bundle_of: Factory) -> None:
    expected = _expected(checkpoint_of(case), bundle_of(case), "webgpu-q4")
    for target in ("webgpu-q4", "wasm-q4"):
        for logits in _both_ways(bundle_of(case), target):
            assert np.abs(logits - expected).max() < 1e-3
            np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize(
    "case", ["gemma2", "gemma3_text-w4a16", "lfm2", "phi3", "smollm3", "qwen2"]
)
def test_other_targets_too(case: str, checkpoint_of: Factory, page: Path, tmp_path: Path) -> None:
    tolerances = {"webgpu-q4f16": 5e-2, "webgpu-q8": 1e-3}
    bundle = tmp_path / "bundle"
    export(checkpoint_of(case), tuple(TARGETS[name] for name in tolerances), bundle, runtime=page)
    for target, tolerance in tolerances.items():
        expected = _expected(checkpoint_of(case), bundle, target)
        for logits in _both_ways(bundle, target):
            assert np.abs(logits - expected).max() < tolerance


@pytest.mark.parametrize("case", ["lfm2", "lfm2-biases"])
def test_short_convolutions_begin_with_one_token(case: str, bundle_of: Factory) -> None:
    for target in ("webgpu-q4", "wasm-q4"):
        decoder = Decoder(bundle_of(case), target)
        stepped = np.concatenate([decoder.step(IDS[i : i + 1], keep=0) for i in range(8)])
        whole = Decoder(bundle_of(case), target).step(IDS[:8], keep=0)
        np.testing.assert_allclose(stepped, whole, atol=1e-4)


def test_each_family_has_a_case() -> None:
    assert {tiny.model_type for tiny in FAMILY_CASES.values()} == set(FAMILIES)
    compressed = {tiny.model_type for tiny in FAMILY_CASES.values() if tiny.scheme != PLAIN}
    assert compressed == set(FAMILIES)


def _kernels(bundle: Path) -> set[tuple[str, ...]]:
    """Operators, with the attributes and optional inputs that they are given."""
    graph = ir.load(bundle / "onnx" / "model_q4.onnx").graph
    return {
        (node.op_type, *sorted(node.attributes), *(str(v is not None) for v in node.inputs))
        for node in graph
        if node.op_type not in ("Concat", "Constant")
    }


@pytest.fixture(scope="module")
def compared(bundle_of: Factory) -> set[tuple[str, ...]]:
    """The kernels that tests/browser/test_families.py runs."""
    return set().union(*(_kernels(bundle_of(case)) for case in IN_BROWSER))


@pytest.mark.parametrize("case", FAMILY_CASES)
def test_only_kernels_that_are_compared_in_a_browser(
    case: str, bundle_of: Factory, compared: set[tuple[str, ...]]
) -> None:
    assert _kernels(bundle_of(case)) - compared == set()
    graph = ir.load(bundle_of(case) / "onnx" / "model_q4.onnx").graph
    # WebGPU's GroupQueryAttention ignores it: onnxruntime-web 1.30.
    assert not any("softcap" in node.attributes for node in graph)


@pytest.mark.parametrize("case", [n for n, tiny in FAMILY_CASES.items() if tiny.scheme != PLAIN])
def test_codes_are_carried_in_every_family(case: str, bundle_of: Factory) -> None:
    rows = read_manifest(bundle_of(case)).weights["q4"].tensors
    assert {row.outcome for row in rows if row.role in ("linear", "float")} == {"exact"}


def test_fused_projections_stay_whole(bundle_of: Factory) -> None:
    rows = {row.name: row for row in read_manifest(bundle_of("phi3-w4a16")).weights["q4"].tensors}
    # 4 heads, and 2 for keys and values each, of 32.
    assert rows["model.layers.0.self_attn.qkv_proj.weight"].shape == (256, 128)
    assert rows["model.layers.0.mlp.gate_up_proj.weight"].shape == (384, 128)


def test_longrope_ends_where_its_factors_change(bundle_of: Factory) -> None:
    assert read_manifest(bundle_of("phi3-longrope")).model.context_length == 128
    assert read_manifest(bundle_of("phi3")).model.context_length == 2048


def test_defaults_that_a_config_leaves_out(
    checkpoint_of: Factory, page: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "older"
    shutil.copytree(checkpoint_of("gemma2"), checkpoint)
    # As Gemma 2's own config.json is: all of these follow from the model type.
    gone = ("layer_types", "rope_parameters", "tie_word_embeddings", "use_bidirectional_attention")
    edit_config(checkpoint, **dict.fromkeys(gone), rope_theta=10000.0, hidden_act="relu")
    kept = json.loads((checkpoint / "config.json").read_text())
    assert not set(gone) & set(kept)
    export(checkpoint, (TARGETS["wasm-q4"],), tmp_path / "out", runtime=page)
    expected = _expected(checkpoint_of("gemma2"), tmp_path / "out", "wasm-q4")
    logits = Decoder(tmp_path / "out", "wasm-q4").step(IDS, keep=0)
    assert np.abs(logits - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"use_bidirectional_attention": True}, "looks forward"),
        ({"layer_types": ["sliding_attention", "linear_attention"] * 2}, "layer_types"),
        ({"hidden_activation": "swoosh"}, "swoosh"),
        ({"sliding_window": 0}, "a sliding window of 0"),
        ({"sliding_window": 1 << 40}, "a sliding window of"),
        ({"head_dim": 33}, "33 values"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": -1.0}}, "no rotation"),
    ],
)
def test_settings_that_no_graph_has(
    changes: dict[str, Any], says: str, checkpoint_of: Factory, page: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "strange"
    shutil.copytree(checkpoint_of("gemma2"), checkpoint)
    edit_config(checkpoint, **changes)
    with pytest.raises(TabwrightError, match=says) as caught:
        export(checkpoint, (TARGETS["wasm-q4"],), tmp_path / "out", runtime=page)
    assert caught.value.code == "graph-undeclared"


_EIGHT = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}


@pytest.mark.parametrize(
    ("case", "changes", "says"),
    [
        ("phi3-partial", {"rope_parameters": _EIGHT}, "rotations of 8 values"),
        ("lfm2", {"conv_L_cache": 1}, "a convolution over 1 positions"),
        ("lfm2", {"conv_L_cache": 1 << 40}, "a convolution over"),
        ("lfm2", {"block_multiple_of": 0}, "by zero"),
        ("llama-yarn", {"layer_types": ["conv", "conv"], "model_type": "qwen3"}, "layer_types"),
    ],
)
def test_settings_that_no_kernel_takes(
    case: str,
    changes: dict[str, Any],
    says: str,
    checkpoint_of: Factory,
    page: Path,
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "strange"
    shutil.copytree(checkpoint_of(case), checkpoint)
    edit_config(checkpoint, **changes)
    with pytest.raises(TabwrightError, match=says) as caught:
        export(checkpoint, (TARGETS["wasm-q4"],), tmp_path / "out", runtime=page)
    assert caught.value.code == "graph-undeclared"


_LLAMA3 = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_YARN = {"factor": 4.0, "original_max_position_embeddings": 4096}
_LONG = {
    "short_factor": [1.0 + i / 40 for i in range(32)],
    "long_factor": [1.0 + i for i in range(32)],
    "original_max_position_embeddings": 4096,
}


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("linear", {"factor": 8.0}),
        ("llama3", _LLAMA3),
        ("yarn", _YARN),
        ("yarn", {**_YARN, "truncate": False, "beta_fast": 16.0, "beta_slow": 2.0}),
        ("yarn", {**_YARN, "mscale": 1.0, "mscale_all_dim": 0.7}),
        ("yarn", {**_YARN, "attention_factor": 1.25}),
        ("longrope", _LONG),
        ("longrope", {**_LONG, "attention_factor": 1.1}),
        ("longrope", {**_LONG, "partial_rotary_factor": 1.0, "factor": 2.0}),
    ],
)
def test_rotary_tables_equal_transformers(kind: str, parameters: dict[str, Any]) -> None:
    given = {"rope_type": kind, "rope_theta": 500000.0, **parameters}
    config: Any = AutoConfig.for_model(
        "llama",
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=16384,
        rope_parameters=given,
    )
    inverse, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    angles = torch.outer(torch.arange(4096).float(), inverse)
    cosines, sines = Rotary(given, 64, 16384).tables(8192)
    count = len(cosines)
    assert count == (4096 if kind == "longrope" else 8192)
    # Angles reach 4096 radians, where float32 steps by 5e-4.
    np.testing.assert_allclose(cosines[:4096], (angles.cos() * factor).numpy(), atol=2e-3)
    np.testing.assert_allclose(sines[:4096], (angles.sin() * factor).numpy(), atol=2e-3)


def test_scalings_are_known_or_refused() -> None:
    # dynamic's frequencies follow the text's length; proportional is Gemma 4's.
    assert set(ROPE_INIT_FUNCTIONS) - set(SCALINGS) == {"dynamic", "proportional"}
    with pytest.raises(ValueError, match="dynamic"):
        Rotary({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, 64, 2048)

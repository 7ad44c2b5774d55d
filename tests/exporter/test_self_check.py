"""The logits that a bundle stores against transformers', and what has none worth storing."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from exporter.pipeline import export
from exporter.reference.model import load_bundle
from exporter.self_check import PROMPT_TOKENS, GraphFailed, LogitsNotFinite, make_self_check
from manifests.bundle import read_manifest
from manifests.self_check import SELF_CHECK_NAME, SelfCheck
from targets import find_targets

NAMES = ("webgpu-q4", "webgpu-q4f16", "wasm-q4")


@pytest.fixture(scope="module")
def bundle(
    tiny_checkpoint: Callable[[str], Path], page: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("self-check") / "bundle"
    export(tiny_checkpoint("w4a16-g32-untied"), find_targets(NAMES), out, runtime=page)
    return out


def test_the_manifest_lists_it_as_every_other_file(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.self_check == SELF_CHECK_NAME
    assert SELF_CHECK_NAME in {file.path for file in manifest.files}


@pytest.mark.parametrize(
    ("name", "spreads"), [(NAMES[0], 1e-4), (NAMES[1], 0.02), (NAMES[2], 1e-4)]
)
def test_stored_logits_are_those_of_the_weights_in_pytorch(
    name: str, spreads: float, bundle: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    check = SelfCheck.load(bundle / SELF_CHECK_NAME)
    weights = read_manifest(bundle).weights["q4"]
    model = load_bundle(tiny_checkpoint("w4a16-g32-untied"), bundle, weights, "cpu")
    with torch.inference_mode():
        logits = model(torch.tensor([check.tokens])).logits[0].float().numpy()
    assert [row.position for row in check.targets[name].positions] == [
        PROMPT_TOKENS - 1,
        PROMPT_TOKENS,
    ]
    for row in check.targets[name].positions:
        expected = logits[row.position]
        assert row.spread == pytest.approx(float(expected.std()), rel=0.01)
        assert row.ids[0] == expected.argmax()
        found = np.array(row.values)
        assert np.abs(found - expected[list(row.ids)]).max() < spreads * row.spread
        # Each is a float32, exactly.
        assert all(struct.unpack("f", struct.pack("f", each))[0] == each for each in row.values)
        assert list(row.values) == sorted(row.values, reverse=True)


def test_a_context_that_is_shorter_than_the_text_shortens_it(
    tiny_checkpoint: Callable[[str], Path], page: Path, tmp_path: Path
) -> None:
    for context, prompt, positions in ((8, 7, [6, 7]), (1, 1, [0])):
        out = tmp_path / str(context)
        source = tiny_checkpoint("w4a16-g32")
        export(source, find_targets(["wasm-q4"]), out, runtime=page, context_length=context)
        check = SelfCheck.load(out / SELF_CHECK_NAME)
        assert (len(check.tokens), check.prompt_tokens) == (context, prompt)
        assert [row.position for row in check.targets["wasm-q4"].positions] == positions


def test_logits_that_are_no_numbers_are_refused(
    tiny_checkpoint: Callable[[str], Path], page: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("bf16-untied"), checkpoint)
    [path] = checkpoint.glob("*.safetensors")
    tensors = load_file(path)
    tensors["model.norm.weight"].fill_(3e38)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(LogitsNotFinite, match="wasm-q4: the model's logits"):
        export(checkpoint, find_targets(["wasm-q4"]), tmp_path / "out", runtime=page)
    assert not (tmp_path / "out").exists()


def test_a_graph_that_onnxruntime_cannot_run_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    manifest = read_manifest(copy)
    (copy / manifest.targets["wasm-q4"].graph).write_bytes(b"no graph")
    with pytest.raises(GraphFailed, match="wasm-q4: onnxruntime cannot run the graph"):
        make_self_check(
            copy,
            {"wasm-q4": manifest.targets["wasm-q4"]},
            Tokenizer.from_file(str(copy / "tokenizer.json")),
            vocabulary=manifest.model.vocab_size,
            context=manifest.model.context_length,
        )

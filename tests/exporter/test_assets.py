"""What a bundle says to readers other than its own page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from exporter.checkpoint.errors import NotACheckpoint
from exporter.pipeline import export
from manifests.bundle import read_manifest
from targets import find_targets

TEMPLATE = "{% for message in messages %}{{ message['content'] + ' ؟' }}{% endfor %}"
OTHER = "{{ messages | length }}"
FILE, SETTINGS = "chat_template.jinja", "tokenizer_config.json"
MESSAGES = [{"role": "user", "content": "مرحبا"}]


@pytest.fixture
def checkpoint(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    copy: Path = shutil.copytree(tiny_checkpoint("bf16"), tmp_path / "checkpoint")
    (copy / FILE).unlink(missing_ok=True)
    return copy


def _set_template(checkpoint: Path, value: Any) -> None:
    path = checkpoint / SETTINGS
    settings = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**settings, "chat_template": value}), "utf-8")


@pytest.mark.parametrize(
    ("setting", "file"),
    [
        (TEMPLATE, None),
        (
            [{"name": "tool_use", "template": OTHER}, {"name": "default", "template": TEMPLATE}],
            None,
        ),
        (OTHER, TEMPLATE),
    ],
)
def test_the_chat_template_is_where_every_reader_looks(
    setting: Any, file: str | None, checkpoint: Path, page: Path
) -> None:
    _set_template(checkpoint, setting)
    if file is not None:
        (checkpoint / FILE).write_text(file, "utf-8")
    out = checkpoint.parent / "bundle"
    manifest = export(checkpoint, find_targets(["wasm-q4"]), out, runtime=page)
    assert manifest.chat_template == FILE
    assert (out / FILE).read_text("utf-8") == TEMPLATE
    assert json.loads((out / SETTINGS).read_text("utf-8"))["chat_template"] == TEMPLATE
    untyped: Any = transformers
    expected, found = (
        untyped.AutoTokenizer.from_pretrained(folder).apply_chat_template(MESSAGES, tokenize=False)
        for folder in (checkpoint, out)
    )
    assert found == expected


@pytest.mark.parametrize("setting", [None, 5, [{"name": "tool_use", "template": OTHER}, 7]])
def test_a_checkpoint_without_a_default_template_makes_a_bundle_without_one(
    setting: Any, checkpoint: Path, page: Path
) -> None:
    _set_template(checkpoint, setting)
    out = checkpoint.parent / "bundle"
    assert export(checkpoint, find_targets(["wasm-q4"]), out, runtime=page).chat_template is None
    assert not (out / FILE).exists()


def test_a_chat_template_that_is_no_text_is_refused(checkpoint: Path, page: Path) -> None:
    (checkpoint / FILE).write_bytes(b"\xff\xfe{{ messages }}")
    with pytest.raises(NotACheckpoint, match="not UTF-8"):
        export(checkpoint, find_targets(["wasm-q4"]), checkpoint.parent / "bundle", runtime=page)


def test_transformers_js_is_told_of_the_conventional_graph_and_its_shards(
    tiny_checkpoint: Callable[[str], Path], page: Path, tmp_path: Path
) -> None:
    names = ("wasm-q4", "webgpu-q8", "webgpu-q4f16")
    export(tiny_checkpoint("bf16"), find_targets(names), tmp_path / "bundle", runtime=page)
    config = json.loads((tmp_path / "bundle" / "config.json").read_text("utf-8"))
    # The 4-bit shards are called after model_q4.onnx, which is not in this bundle.
    assert config["transformers.js_config"] == {
        "device": "webgpu",
        "dtype": "q8",
        "use_external_data_format": {"model_quantized.onnx": 1},
    }
    assert read_manifest(tmp_path / "bundle").weights["q8"].shards == (
        "onnx/model_quantized.onnx_data",
    )

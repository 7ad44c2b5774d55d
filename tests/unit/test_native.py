"""The bundle outside the browser: the tokens of the engines, and where their speed is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from browser_harness.report.glance import glance
from exporter.pipeline import export
from exporter.reference import native
from exporter.reference.errors import NativeFailed
from exporter.reference.make import make_reference
from exporter.reference.native import Job, Timed, native_target, time_in_a_process
from manifests.bundle import read_manifest
from manifests.progress import silent
from manifests.reference import Engine, NativeSpeed, PrefillSpeed, Speed
from manifests.report import ReferenceSummary
from targets import TARGETS, find_targets
from tests.decoder import Decoder
from tests.families import Tiny, write_family
from tests.unit.reports import sample_report

PROMPTS = ((5, 17, 300, 42), (1, 2, 3, 4, 5, 6, 7, 8, 9))
TOKENS = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"tie_word_embeddings": False, "initializer_range": 0.2}
    return write_family(Tiny("llama", settings), tmp_path_factory.mktemp("native") / "checkpoint")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, page: Path) -> Path:
    out = checkpoint.parent / "bundle"
    export(checkpoint, find_targets(["webgpu-q4", "wasm-q4"]), out, runtime=page)
    return out


def _job(bundle: Path, engine: Engine, target: str) -> Job:
    return Job(
        bundle=str(bundle),
        engine=engine,
        target=target,
        threads=1,
        prompts=PROMPTS,
        decode_tokens=TOKENS,
        repetitions=2,
    )


@pytest.mark.parametrize("target", ["wasm-q4", "webgpu-q4"])
@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-genai"])
def test_an_engines_tokens_are_the_graphs(engine: Engine, target: str, bundle: Path) -> None:
    timed = time_in_a_process(_job(bundle, engine, target))
    decoder, fed = Decoder(bundle, target), list(PROMPTS[0])
    expected: list[int] = []
    for _ in range(1 + TOKENS):
        expected.append(int(decoder.step(np.array(fed), 1)[-1].argmax()))
        fed = expected[-1:]
    assert len(set(expected)) > 3
    assert timed.tokens == tuple(expected)
    assert [len(ms) for ms in timed.prefill_ms] == [2, 2]
    assert len(timed.decode_ms) == 2 * TOKENS
    # More than an interpreter's, and less than a process that has torch in it.
    assert 30e6 < timed.peak_bytes < 400e6


def test_a_token_that_ends_a_text_ends_no_timing(bundle: Path, tmp_path: Path) -> None:
    wanted = time_in_a_process(_job(bundle, "onnxruntime", "wasm-q4")).tokens
    ending = shutil.copytree(bundle, tmp_path / "ending")
    config = ending / "genai_config.json"
    told = json.loads(config.read_text("utf-8"))
    told["model"]["eos_token_id"] = [wanted[2]]
    config.write_text(json.dumps(told), "utf-8")
    timed = time_in_a_process(_job(ending, "onnxruntime-genai", "wasm-q4"))
    assert timed.tokens == wanted


def test_a_bundle_that_an_engine_refuses_is_told(bundle: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(bundle, tmp_path / "broken")
    (broken / "onnx" / "model_q4_wasm.onnx").write_bytes(b"no graph")
    with pytest.raises(NativeFailed, match="onnxruntime does not run it natively"):
        time_in_a_process(_job(broken, "onnxruntime", "wasm-q4"))


def test_the_graph_for_the_cpu_is_taken_where_there_is_one(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert native_target(manifest) == "wasm-q4"
    only = manifest.model_copy(update={"targets": {"webgpu-q4": manifest.targets["webgpu-q4"]}})
    assert native_target(only) == "webgpu-q4"


@pytest.mark.parametrize("target", ["wasm-q4", "webgpu-q4f16"])
def test_the_speed_is_told_with_the_graph_s_own_floats(
    target: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = TARGETS[target].activation_dtype
    manifest = read_manifest(bundle)
    entry = manifest.targets["webgpu-q4"].model_copy(update={"activation_dtype": dtype})
    only = manifest.model_copy(update={"targets": {target: entry}})
    timed = Timed(load_ms=1, prefill_ms=((1.0,),), decode_ms=(1.0,), peak_bytes=1, tokens=(1, 2))
    monkeypatch.setattr(native, "read_manifest", lambda _: only)
    monkeypatch.setattr(native, "time_in_a_process", lambda _: timed)
    found = native.measure_native(
        bundle, PROMPTS[:1], threads=1, decode_tokens=1, repetitions=1, progress=silent
    )
    assert {each.speed.dtype for each in found} == {dtype}


def test_a_reference_keeps_every_engines_speed(
    checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    text = {"name": "one", "language": "en", "text": "A single line."}
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps({"tokens": [], "chats": [], "scored": [text], "greedy": []}))
    made = make_reference(
        checkpoint,
        bundle,
        tmp_path / "reference.json",
        device="cpu",
        suite=suite,
        repetitions=1,
        decode_tokens=2,
        threads=1,
        native=True,
    )
    assert made.device.threads == 1
    assert [each.engine for each in made.native] == ["onnxruntime", "onnxruntime-genai"]
    for each in made.native:
        assert (each.threads, each.target, len(each.speed.decode_ms)) == (1, "wasm-q4", 2)
        lengths = [sample.prompt_tokens for sample in made.speed.prefill]
        assert [sample.prompt_tokens for sample in each.speed.prefill] == lengths


def test_native_engines_stand_beside_pytorch_in_the_table() -> None:
    report = sample_report()
    assert report.reference is not None
    speed = Speed(
        dtype="float32",
        load_ms=1500,
        prefill=(PrefillSpeed(prompt_tokens=64, ms=(128.0, 128.0)),),
        decode_ms=(20.0, 20.0),
        peak_bytes=700_000_000,
        peak_kind="process-rss",
    )
    engine = NativeSpeed(
        engine="onnxruntime", version="1.31.1", target="wasm-q4", threads=3, speed=speed
    )
    reference = ReferenceSummary(
        device=report.reference.device, speed=report.reference.speed, native=(engine,)
    )
    table = glance(report.model_copy(update={"reference": reference}))
    assert table.columns[-2:] == ("PyTorch", "onnxruntime 1.31.1")
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}
    last = {row.label: row.cells[-1] for row in table.rows}
    assert last["Warm load"] == "1.50 s"
    assert last["First token after 64 (prefill)"] == "128 ms (500 tok/s)"
    assert last["Decode, median (5 to 95 %)"] == "50.0 tok/s (50.0–50.0)"
    assert last["CPU threads"] == "3"
    inside = report.targets["wasm-q4"].decode
    ms = [each for run in inside for each in run.ms[run.warmup :]]
    costs = {row.label: row.cells for row in table.rows}["A token's time over onnxruntime 1.31.1's"]
    assert costs[table.columns.index("wasm-q4")] == f"× {np.median(ms) / 20:.2f}"


def test_a_version_that_would_be_markup_is_refused() -> None:
    report = sample_report()
    assert report.reference is not None
    good = {"engine": "onnxruntime", "target": "wasm-q4", "threads": 1}
    fields = {**good, "speed": report.reference.speed}
    assert NativeSpeed.model_validate({**fields, "version": "1.31.1+cu12"}).version == "1.31.1+cu12"
    with pytest.raises(ValidationError, match="version"):
        NativeSpeed.model_validate({**fields, "version": "[/x]"})

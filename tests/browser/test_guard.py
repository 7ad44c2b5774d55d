"""The self-check after a load, and every way down from it, in a real Chromium.

SwiftShader provokes the first two by itself: with its optional features it computes
prompts wrongly that are fed in steps of 32 tokens or more.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from browser_harness.plan import PAGE
from exporter.lower import passes
from exporter.lower.resident import stay_resident
from exporter.pipeline import export
from exporter.write import files
from manifests.bundle import MANIFEST_NAME, Manifest, read_manifest
from manifests.self_check import SELF_CHECK_NAME, SelfCheck
from targets import find_targets
from tests.families import Tiny, narrowed, write_family
from tests.harness_page import harness_tab

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

TARGETS = ("webgpu-q4", "webgpu-q8", "wasm-q4")
WEBGPU = ("webgpu-q4", "webgpu-q8")
#: Longer than the 32 tokens from which on SwiftShader's optional features go wrong.
LONG = {"prefillChunk": 64, "loop": "plain"}

_LOAD = """async ([name, options]) => {
  const { load } = await import("/bundles/right/runtime/tabwright.js");
  const url = `/bundles/${name}/manifest.json`;
  try {
    const model = await load(url, { threads: 1, worker: false, store: "none", ...options });
    await model.dispose();
    return model.info;
  } catch (error) {
    return { code: error.code, message: error.message };
  }
}"""
#: What a page believes that finds nothing of a software adapter in its description.
_HARDWARE = """() => {
  const unnamed = { vendor: "v", architecture: "a", device: "", description: "" };
  const info = { ...unnamed, isFallbackAdapter: false };
  Object.defineProperty(GPUAdapter.prototype, "info", { get: () => info });
}"""
Case = tuple[str, dict[str, Any]]
CASES: dict[str, Case] = {
    "features": ("subgroups", {"target": "webgpu-q4", "deviceFeatures": "all", **LONG}),
    "resident": ("scaled", {"target": "webgpu-q4"}),
    "cpu alone": ("cpu-wrong", {"target": "wasm-q4"}),
    "cpu": ("right", {"target": "wasm-q4", "store": "opfs"}),
    "cpu again": ("right", {"target": "wasm-q4", "store": "opfs"}),
    "skipped": ("cpu-wrong", {"target": "wasm-q4", "selfCheck": False}),
}
ON_HARDWARE: dict[str, Case] = {"chosen": ("gpu-wrong", {"loop": "plain", "prefillChunk": 16})}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    checkpoint = write_family(
        narrowed(Tiny("llama", {"num_hidden_layers": 1})), folder / "checkpoint"
    )
    root = folder / "bundles"
    export(checkpoint, find_targets(TARGETS), root / "right", runtime=PAGE.parent / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "_INTERFACES", {**passes._INTERFACES, "resident": _scaled})
        export(
            checkpoint, find_targets(["webgpu-q4"]), root / "scaled", runtime=PAGE.parent / "bundle"
        )
    _alter(root, "gpu-wrong", logits=WEBGPU)
    _alter(root, "cpu-wrong", logits=("wasm-q4",))
    _alter(root, "subgroups", features=("subgroups",))
    return root


def _scaled(model: ir.Model) -> None:
    """The resident graph of a kernel that ignores the scale of attention's scores."""
    stay_resident(model)
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            node.attributes["scale"] = ir.AttrFloat32("scale", 3.0)


def _alter(
    root: Path, name: str, *, logits: tuple[str, ...] = (), features: tuple[str, ...] = ()
) -> None:
    """A copy of the bundle whose stored ``logits`` are a spread too high, sealed again."""
    bundle = root / name
    shutil.copytree(root / "right", bundle)
    path = bundle / SELF_CHECK_NAME
    check = SelfCheck.load(path).model_dump()
    for target in logits:
        for position in check["targets"][target]["positions"]:
            position["values"] = [value + position["spread"] for value in position["values"]]
    written = files.add(bundle, SELF_CHECK_NAME, json.dumps(check).encode())
    manifest = read_manifest(bundle)
    described = tuple(written if file.path == written.path else file for file in manifest.files)
    targets = {
        each: entry.model_copy(update={"features": features} if each in WEBGPU else {})
        for each, entry in manifest.targets.items()
    }
    changed: Manifest = manifest.model_copy(update={"files": described, "targets": targets})
    (bundle / MANIFEST_NAME).write_bytes(changed.sealed_bytes())


@pytest.fixture(scope="module")
def loaded(bundles: Path) -> dict[str, dict[str, Any]]:
    async def run() -> dict[str, dict[str, Any]]:
        found = {}
        folders = {"/bundles": bundles, "/bundle": bundles / "right"}
        async with harness_tab(folders, "software") as (tab, _):

            async def ask(script: str, given: Any) -> Any:
                return await tab.evaluate(script, given, seconds=120, doing="loading")

            for name, case in CASES.items():
                found[name] = await ask(_LOAD, case)
            await ask(_HARDWARE, None)
            for name, case in ON_HARDWARE.items():
                found[name] = await ask(_LOAD, case)
        return found

    return asyncio.run(run())


def _steps(info: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["step"], each["code"]) for each in info["fallbacks"]]


def test_a_wrong_device_loses_its_optional_features_and_then_its_long_steps(loaded: Any) -> None:
    info = loaded["features"]
    wrong = "self-check-failed"
    # The feature that makes it wrong is one that this bundle says it needs.
    assert _steps(info) == [("needed-features", wrong), ("short-prefill", wrong)]
    first, second = info["fallbacks"]
    assert first["failed"]["device_features"] == "all"
    assert first["taken"] == second["failed"]
    assert first["taken"]["device_features"] == "needed"
    assert second["taken"]["prefill_chunk"] == 16
    assert "webgpu-q4: the logits at position" in first["reason"]
    adapter = info["adapter"]
    assert "subgroups" in adapter["device_features"]
    assert len(adapter["device_features"]) < len(adapter["features"])
    assert info["notes"][0].startswith("uses none of the GPU's optional features (webgpu-q4): ")
    _passed(info)


def test_a_wrong_resident_graph_is_left_for_the_plain_loop(loaded: Any) -> None:
    info = loaded["resident"]
    assert _steps(info) == [("plain-loop", "self-check-failed")]
    assert info["loop"] == "plain"
    _passed(info)


def test_a_gpu_that_is_wrong_with_every_target_is_left_for_the_cpu(loaded: Any) -> None:
    info = loaded["chosen"]
    assert _steps(info) == [("other-target", "self-check-failed"), ("cpu", "self-check-failed")]
    assert [each["failed"]["target"] for each in info["fallbacks"]] == list(WEBGPU)
    assert info["target"] == "wasm-q4"
    assert info["choice"]["target"] == "webgpu-q4"
    _passed(info)


def test_where_all_is_wrong_there_is_no_model(loaded: Any) -> None:
    assert loaded["cpu alone"]["code"] == "self-check-failed"
    assert "wasm-q4: the logits at position" in loaded["cpu alone"]["message"]


def test_a_pass_is_remembered_and_a_check_that_was_skipped_is_told(loaded: Any) -> None:
    _passed(loaded["cpu"])
    assert loaded["cpu"]["notes"] == []
    assert loaded["cpu again"]["selfCheck"] == {"outcome": "passed-before", "positions": 0}
    assert loaded["skipped"]["selfCheck"]["outcome"] == "skipped"
    assert "skipped" in loaded["skipped"]["notes"][0]


def _passed(info: dict[str, Any]) -> None:
    check = info["selfCheck"]
    assert (check["outcome"], check["positions"]) == ("passed", 2)
    # A thousandth of what is allowed: right, not merely let through.
    assert check["error"] < 1e-3 * check["tolerance"]

"""A first visit, one that is broken off, and one to a newer bundle, without WebGPU in sight."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest

from browser_harness.plan import PAGE
from exporter.pipeline import export
from exporter.write import files
from manifests.bundle import MANIFEST_NAME, Manifest, read_manifest
from targets import find_targets
from tests.harness_page import harness_tab

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

#: What the browser runs by itself is compared as it is served, and not stored.
NOT_STORED = {"index.html", "sw.js", "runtime/chat.js", "runtime/chat.css", "runtime/tabwright.js"}
#: Asks for as little as a page can: the runtime finds out what to run.
_LOAD = """async (stopAt) => {
  const { load } = await import("/bundle/runtime/tabwright.js");
  const asked = navigator.storage.persist;
  let persist = 0;
  navigator.storage.persist = () => (persist++, Promise.resolve(true));
  const control = new AbortController();
  const phases = [];
  const onProgress = ({ phase }) => {
    if (phases.at(-1) !== phase) phases.push(phase);
    if (phase === stopAt) control.abort();
  };
  try {
    const model = await load("/bundle/manifest.json", { signal: control.signal, onProgress });
    await model.dispose();
    return { info: model.info, phases, persist };
  } catch (error) {
    return { code: error.code, phases };
  } finally {
    navigator.storage.persist = asked;
  }
}"""
_STORED = """async () => {
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("tabwright");
  const found = {};
  for await (const [name, handle] of (await root.getDirectoryHandle("chunks")).entries()) {
    const bytes = await (await handle.getFile()).arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    found[name] = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
  return found;
}"""


@pytest.fixture(scope="module")
def bundle(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("loading") / "bundle"
    targets = find_targets(("webgpu-q4", "wasm-q4"))
    export(tiny_checkpoint("w4a16-g32"), targets, out, runtime=PAGE.parent / "bundle")
    return out


@pytest.fixture(scope="module")
def visits(bundle: Path) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with harness_tab({"/bundle": bundle}, "none") as (tab, _):

            async def ask(script: str, given: Any = None) -> Any:
                return await tab.evaluate(script, given, seconds=60, doing="loading")

            found["stopped"] = await ask(_LOAD, "download")
            found["stored when stopped"] = await ask(_STORED)
            found["first"] = await ask(_LOAD)
            found["again"] = await ask(_LOAD)
            found["old"] = read_manifest(bundle)
            found["new"] = _replace(bundle)
            found["newer"] = await ask(_LOAD)
            found["stored in the end"] = await ask(_STORED)
        return found

    return asyncio.run(run())


def _replace(bundle: Path) -> Manifest:
    """A newer bundle at the same address: its config is another, its weights are the same."""
    manifest = read_manifest(bundle)
    config = json.loads((bundle / "config.json").read_text("utf-8"))
    written = files.add(bundle, "config.json", json.dumps({**config, "newer": True}).encode())
    described = tuple(written if each.path == written.path else each for each in manifest.files)
    newer = manifest.model_copy(update={"files": described})
    (bundle / MANIFEST_NAME).write_bytes(newer.sealed_bytes())
    return read_manifest(bundle)


def _chunks(manifest: Manifest) -> set[str]:
    kept = (
        file
        for file in manifest.files
        if file.path not in NOT_STORED and not file.path.endswith(".d.ts")
    )
    return {digest for file in kept for digest in file.chunks}


def test_without_webgpu_the_cpu_target_runs_and_each_refusal_is_told(visits: Any) -> None:
    info = visits["first"]["info"]
    assert info["target"] == "wasm-q4"
    [refused] = info["choice"]["refused"]
    assert (refused["target"], refused["code"]) == ("webgpu-q4", "adapter-missing")
    assert info["choice"]["storable"] is True
    assert info["fallbacks"] == []
    assert info["selfCheck"]["outcome"] == "passed"


def test_what_was_predicted_follows_from_the_checkpoint(visits: Any) -> None:
    predicted = visits["first"]["info"]["choice"]["predicted"]
    # Two layers of keys and values, 2 heads of 32 floats, for all 2048 positions.
    assert predicted["cacheBytes"] == 2 * 2 * 2 * 32 * 4 * 2048
    manifest: Manifest = visits["old"]
    rows = manifest.weights["q4"].tensors
    linear = sum(prod(row.shape) for row in rows if row.role == "linear")
    tied = sum(prod(row.shape) for row in rows if row.role == "tied")
    others = manifest.model.parameters - linear - tied
    # Codes of 4 bits and of 8, and a float for every 32; the tied matrix is there once more for
    # the embedding, with its halves as stored.
    needed = linear * (1 / 2 + 4 / 32) + tied * (1 + 4 / 32) + tied * (1 + 2 / 32) + others * 4
    assert predicted["weightBytes"] == needed


def test_a_load_tells_its_phases_and_asks_once_that_its_files_be_kept(visits: Any) -> None:
    assert visits["first"]["phases"] == ["manifest", "stored", "download", "session", "check"]
    assert visits["first"]["persist"] == 1
    assert visits["again"]["info"]["timings"]["bytes_fetched"] == 0
    assert visits["again"]["info"]["selfCheck"]["outcome"] == "passed-before"


def test_a_load_that_is_broken_off_leaves_whole_chunks_only(visits: Any) -> None:
    assert visits["stopped"]["code"] == "aborted"
    stored = visits["stored when stopped"]
    assert stored
    assert all(name == digest for name, digest in stored.items())
    timings = visits["first"]["info"]["timings"]
    sizes = {file.chunks[0]: file.size for file in visits["old"].files if len(file.chunks) == 1}
    assert timings["bytes_from_store"] >= sum(sizes.get(name, 0) for name in stored)


def test_a_newer_bundle_takes_the_place_of_the_older(visits: Any) -> None:
    fetched = visits["newer"]["info"]["timings"]["bytes_fetched"]
    [config] = [file for file in visits["new"].files if file.path == "config.json"]
    assert fetched == config.size
    # Its seal is another: nobody has seen this bundle pass.
    assert visits["newer"]["info"]["selfCheck"]["outcome"] == "passed"
    assert set(visits["stored in the end"]) == _chunks(visits["new"])
    assert _chunks(visits["old"]) - _chunks(visits["new"])

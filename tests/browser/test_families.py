"""Families' graphs in the browser against the same graphs in onnxruntime.

tests/exporter/test_families.py holds the latter to transformers, and every family's graph
to the kernels that these cases have.  A difference here is the browser's: a kernel that
ignores an attribute, a state that is lost between two calls, floats that the page makes wrongly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from browser_harness.client import OBJECT, MeasurePage
from browser_harness.plan import PAGE
from exporter.pipeline import export
from manifests.bundle import MANIFEST_NAME
from manifests.page import LoadRequest
from targets import TARGETS, Target
from tests.decoder import Decoder
from tests.families import FAMILY_CASES, IN_BROWSER, NARROW_WINDOW, narrowed, write_family
from tests.harness_page import harness_tab

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

GPU = TARGETS["webgpu-q4"]
#: On the CPU the page multiplies by codes itself: of either width, with zero points and without,
#: of columns in another order, of blocks short and long, heads of their own and shared.
CPU: Mapping[str, Target] = {
    "bf16": TARGETS["wasm-q8"],
    "w4a16-g32-untied": TARGETS["wasm-q4"],
    "w4a16-g32-asymmetric": TARGETS["wasm-q4"],
    "gptq-act-order": TARGETS["wasm-q4"],
    "w8a16-channel": TARGETS["wasm-q8"],
}
#: Fed in steps of 5, 5 and 1: a prompt, more of it past the windows' ends, and a token.
STEP = NARROW_WINDOW + 1
IDS = np.random.default_rng(7).integers(3, 64, 2 * STEP + 1)


def test_webgpu_agrees_with_the_cpu(tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    for case in IN_BROWSER:
        checkpoint = write_family(narrowed(FAMILY_CASES[case]), tmp_path / case)
        export(checkpoint, (GPU,), bundles / case, runtime=PAGE.parent / "bundle")
    found = asyncio.run(_score_all(bundles, dict.fromkeys(IN_BROWSER, GPU)))
    for case, (logits, _) in found.items():
        expected = Decoder(bundles / case, GPU.name).step(IDS, keep=0)
        np.testing.assert_allclose(logits, expected, atol=1e-3, err_msg=case)


def test_the_page_multiplies_by_every_weight(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    bundles, targets = tmp_path / "bundles", dict(CPU)
    for case, target in CPU.items():
        export(tiny_checkpoint(case), (target,), bundles / case, runtime=PAGE.parent / "bundle")
    for case in IN_BROWSER:
        targets[case] = TARGETS["wasm-q4"]
        checkpoint = write_family(narrowed(FAMILY_CASES[case]), tmp_path / case)
        export(checkpoint, (targets[case],), bundles / case, runtime=PAGE.parent / "bundle")
    for case, (logits, notes) in asyncio.run(_score_all(bundles, targets)).items():
        expected = Decoder(bundles / case, targets[case].name).step(IDS, keep=0)
        np.testing.assert_allclose(logits, expected, atol=1e-3, err_msg=case)
        assert not [note for note in notes if "ONNX Runtime makes" in note], case


async def _score_all(
    bundles: Path, targets: Mapping[str, Target]
) -> dict[str, tuple[NDArray[np.float32], tuple[str, ...]]]:
    """Each bundle's logits and notes, in one page, which runs the first's runtime."""
    found = {}
    folders = {"/bundles": bundles, "/bundle": bundles / next(iter(targets))}
    gpu = any(target.execution_provider == "webgpu" for target in targets.values())
    async with harness_tab(folders, "software" if gpu else "none") as (tab, site):
        page = MeasurePage(tab, call_seconds=300)
        for case, target in targets.items():
            url = f"{site}/bundles/{case}/{MANIFEST_NAME}"
            request = LoadRequest(manifest_url=url, target=target.name, threads=1, self_check=False)
            loaded = await page.load(request, seconds=300)
            blocks = [block.logits async for block in page.score(IDS.tolist(), STEP)]
            found[case] = (np.concatenate(blocks), loaded.notes)
            await page.tab.call(OBJECT, "dispose", seconds=30, doing=f"releasing {case}")
    return found

"""Families' graphs on WebGPU against the same graphs in onnxruntime on the CPU.

tests/exporter/test_families.py holds the latter to transformers, and every family's graph
to the kernels that these cases have.  A difference here is the browser's: a kernel that
ignores an attribute, or a state that is lost between two calls.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from browser_harness.client import OBJECT, MeasurePage
from browser_harness.plan import PAGE
from exporter.pipeline import export
from manifests.bundle import MANIFEST_NAME
from manifests.page import LoadRequest
from targets import TARGETS
from tests.decoder import Decoder
from tests.families import FAMILY_CASES, IN_BROWSER, NARROW_WINDOW, narrowed, write_family
from tests.harness_page import harness_tab

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

TARGET = TARGETS["webgpu-q4"]
#: Fed in steps of 5, 5 and 1: a prompt, more of it past the windows' ends, and a token.
STEP = NARROW_WINDOW + 1
IDS = np.random.default_rng(7).integers(3, 64, 2 * STEP + 1)


def test_webgpu_agrees_with_the_cpu(tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    for case in IN_BROWSER:
        checkpoint = write_family(narrowed(FAMILY_CASES[case]), tmp_path / case)
        export(checkpoint, (TARGET,), bundles / case, runtime=PAGE.parent / "bundle")
    for case, logits in asyncio.run(_score_all(bundles)).items():
        expected = Decoder(bundles / case, TARGET.name).step(IDS, keep=0)
        np.testing.assert_allclose(logits, expected, atol=1e-3, err_msg=case)


async def _score_all(bundles: Path) -> dict[str, NDArray[np.float32]]:
    """Each bundle's logits, one after the other in one page, which runs the first's runtime."""
    found = {}
    folders = {"/bundles": bundles, "/bundle": bundles / IN_BROWSER[0]}
    async with harness_tab(folders, "software") as (tab, site):
        page = MeasurePage(tab, call_seconds=300)
        for case in IN_BROWSER:
            url = f"{site}/bundles/{case}/{MANIFEST_NAME}"
            request = LoadRequest(manifest_url=url, target=TARGET.name, threads=1, self_check=False)
            await page.load(request, seconds=300)
            blocks = [block.logits async for block in page.score(IDS.tolist(), STEP)]
            found[case] = np.concatenate(blocks)
            await page.tab.call(OBJECT, "dispose", seconds=30, doing=f"releasing {case}")
    return found

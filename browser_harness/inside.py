"""Run a bundle over token ids and read all that its graph answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from browser_harness.client import MeasurePage
from browser_harness.evaluation.browser import OpenBundle
from browser_harness.plan import Options, block_rows


def read_rows(
    bundle: Path, target: str, ids: Sequence[int], options: Options
) -> NDArray[np.float32]:
    """The rows that ``target`` answers, float32 [tokens, width], in a browser of its own.

    Raises:
        TabwrightError: whatever :class:`~browser_harness.evaluation.browser.OpenBundle` refuses.
    """
    opened = OpenBundle(bundle, target, options)
    try:
        rows = block_rows(opened.manifest.model.vocab_size)
        return opened.wait(_score(opened.page, ids, rows))
    finally:
        opened.close()


async def _score(page: MeasurePage, ids: Sequence[int], rows: int) -> NDArray[np.float32]:
    return np.concatenate([block.logits async for block in page.score(ids, rows)])

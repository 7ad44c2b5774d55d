"""Perplexity and most likely tokens: in PyTorch, and in a browser."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from browser_harness.launch import driver, launch
from browser_harness.loads import Served, serve
from browser_harness.plan import PAGE, PLANS, block_rows, default_threads
from manifests.agreement import log_softmax
from manifests.progress import Progress
from manifests.reference import ScoredText
from tests.bench.study.rows import Scores

#: Most likely tokens, one a position, by the window's name.
Top = dict[str, list[int]]
_PLAN = replace(PLANS["full"], call_seconds=900.0, load_seconds=900.0)


class Tally:
    """Sums over windows, fed a block of logits at a time."""

    def __init__(self) -> None:
        self.top: defaultdict[str, list[int]] = defaultdict(list)
        self._languages: dict[str, str] = {}
        self._nll: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, text: ScoredText, start: int, logits: NDArray[np.float32]) -> None:
        """Add rows ``start``... of ``text``: float32 [rows, vocabulary]."""
        self._languages[text.name] = text.language
        self.top[text.name] += logits.argmax(axis=-1).tolist()
        following = np.array(text.ids[start + 1 : start + 1 + len(logits)], dtype=np.int64)
        logarithms = log_softmax(logits[: len(following)])
        self._nll[text.language] += (-logarithms[np.arange(len(following)), following]).tolist()

    def scores(self, expected: Mapping[str, Sequence[int]]) -> Scores:
        """What was added, with ``expected`` as the uncompressed model's tokens."""
        same: defaultdict[str, list[bool]] = defaultdict(list)
        for name, tokens in self.top.items():
            pairs = zip(tokens, expected[name], strict=True)
            same[self._languages[name]] += [one == other for one, other in pairs]
        return Scores(
            positions={language: len(nll) for language, nll in self._nll.items()},
            perplexity={
                language: float(np.exp(np.mean(nll))) for language, nll in self._nll.items()
            },
            agreement={language: float(np.mean(equal)) for language, equal in same.items()},
        )


def score_in_pytorch(checkpoint: Path, windows: Sequence[ScoredText], progress: Progress) -> Tally:
    """The checkpoint's weights as floats, and all arithmetic in float32.

    No activation is rounded, whatever the checkpoint asks for: as in the browser.
    """
    import torch

    from exporter.reference import model as reference
    from exporter.reference.answers import score
    from exporter.reference.own_reading import fill

    config = reference.read_config(checkpoint)
    model: Any = fill(reference.without_weights(config, torch.float32), checkpoint).eval()
    rows = block_rows(config.get_text_config().vocab_size)
    tally = Tally()
    for done, text in enumerate(windows):
        progress("score in PyTorch", done, len(windows))
        logits = score(model, (text,), "one window", lambda *_: None)[text.name]
        for start in range(0, len(logits), rows):
            tally.add(text, start, logits[start : start + rows])
    progress("score in PyTorch", len(windows), len(windows))
    return tally


def score_in_browser(
    bundle: Path, target: str, vocabulary: int, windows: Sequence[ScoredText], progress: Progress
) -> tuple[Tally, str]:
    """A bundle's target in Chromium, and which Chromium."""
    return asyncio.run(_score(bundle, target, vocabulary, windows, progress))


async def _score(
    bundle: Path, target: str, vocabulary: int, windows: Sequence[ScoredText], progress: Progress
) -> tuple[Tally, str]:
    tally = Tally()
    phase = f"score {target} in the browser"
    with serve(bundle, PAGE) as site:
        async with driver() as playwright, launch(playwright, adapter="none") as session:
            served = Served(
                site=site, target=target, threads=default_threads(), plan=_PLAN, adapter="none"
            )
            page = await served.loaded(session)
            for done, text in enumerate(windows):
                progress(phase, done, len(windows))
                async for block in page.score(text.ids, block_rows(vocabulary)):
                    tally.add(text, block.start, block.logits)
            await page.close()
            progress(phase, len(windows), len(windows))
            return tally, f"{session.browser.name} {session.browser.version}"

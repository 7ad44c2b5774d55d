"""The sampler that runs on the GPU, against the same distribution in NumPy."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from browser_harness.launch import driver, launch
from browser_harness.serve import StaticServer

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

PAGE = Path(__file__).parent / "sampler_page"
ESBUILD = Path("browser_harness/page/node_modules/.bin/esbuild")
VOCABULARY = 300  # more than the sampler has threads
DRAWS = 500
PROMPT = (3, 7, 11, 3)
LOGITS = np.random.default_rng(4).normal(0, 1.5, VOCABULARY).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """Settings, as SamplingOptions has them."""

    temperature: float
    top_k: int = VOCABULARY
    top_p: float = 1.0
    penalty: float = 1.0
    #: The tokens that may be chosen.
    allowed: tuple[int, ...] = tuple(range(VOCABULARY))

    def options(self, seed: int) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "topK": self.top_k,
            "topP": self.top_p,
            "repetitionPenalty": self.penalty,
            "seed": seed,
        }

    def probabilities(self) -> NDArray[np.float64]:
        """Of every token, for the first draw."""
        logits = LOGITS.astype(np.float64)
        seen = np.isin(np.arange(VOCABULARY), PROMPT)
        penalised = np.where(logits > 0, logits / self.penalty, logits * self.penalty)
        scaled = np.where(seen, penalised, logits) / self.temperature
        scaled[~np.isin(np.arange(VOCABULARY), self.allowed)] = -np.inf
        order = np.argsort(-scaled)
        kept = order[: self.top_k]
        weights = np.exp(scaled[kept] - scaled[kept[0]])
        before = np.cumsum(weights) - weights
        kept, weights = (values[before < self.top_p * weights.sum()] for values in (kept, weights))
        found = np.zeros(VOCABULARY)
        found[kept] = weights / weights.sum()
        return found


CASES = {
    "temperature": Case(1.0),
    "top-k": Case(2.0, top_k=12),
    "top-p": Case(1.5, top_p=0.4),
    "top-k, then top-p": Case(3.0, top_k=40, top_p=0.7),
    "every third": Case(2.0, top_k=20, top_p=0.8, allowed=tuple(range(1, VOCABULARY, 3))),
    # Fewer than are to be considered.
    "three": Case(2.0, top_k=5, top_p=0.95, allowed=(2, 200, 299)),
}
PENALISED = Case(0.8, top_k=30, top_p=0.9, penalty=1.3)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[int]]]:
    folder = tmp_path_factory.mktemp("sampler")
    shutil.copy(PAGE / "index.html", folder)
    subprocess.run(
        [
            ESBUILD,
            PAGE / "sampler.ts",
            "--bundle",
            "--format=esm",
            f"--outfile={folder}/sampler.js",
        ],
        check=True,
        capture_output=True,
    )

    async def run() -> dict[str, dict[str, list[int]]]:
        async with driver() as playwright, launch(playwright, adapter="software") as session:
            with StaticServer({"/sampler": folder}) as site:
                tab = await session.new_tab()
                await tab.open(f"{site.url}/sampler/index.html", "sampler", seconds=30)
                asked = {name: (case, DRAWS, 1) for name, case in CASES.items()}
                asked["again"] = (CASES["top-k"], 50, 1)
                asked["another seed"] = (CASES["top-k"], 50, 2)
                asked["penalised"] = (PENALISED, 50, 1)
                return {
                    name: await tab.call(
                        "sampler",
                        "draw",
                        LOGITS.tolist(),
                        PROMPT,
                        case.options(seed),
                        count,
                        case.allowed,
                        seconds=120,
                        doing="drawing",
                    )
                    for name, (case, count, seed) in asked.items()
                }

    return asyncio.run(run())


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_drawn_with_their_probabilities(
    name: str, drawn: dict[str, dict[str, list[int]]]
) -> None:
    expected = CASES[name].probabilities() * DRAWS
    counts = np.bincount(drawn[name]["gpu"], minlength=VOCABULARY)
    assert not counts[expected == 0].any()
    # Every token that is kept turns up, where each is likely enough to.
    if expected[expected > 0].min() > 12:
        assert counts[expected > 0].all()
    often = expected >= 5
    groups = [np.append(values[often], values[~often].sum()) for values in (counts, expected)]
    if not groups[1][-1]:
        groups = [values[:-1] for values in groups]
    assert chisquare(*groups).pvalue > 1e-4


def test_two_cases_reach_every_token_that_they_keep() -> None:
    least = [case.probabilities() for case in CASES.values()]
    assert sum(case[case > 0].min() * DRAWS > 12 for case in least) >= 2


def test_draws_repeat_with_their_seed(drawn: dict[str, dict[str, list[int]]]) -> None:
    assert drawn["again"]["gpu"] == drawn["top-k"]["gpu"][:50]
    assert drawn["another seed"]["gpu"] != drawn["again"]["gpu"]


def test_the_cpu_draws_the_same_tokens(drawn: dict[str, dict[str, list[int]]]) -> None:
    for answer in drawn.values():
        assert answer["gpu"] == answer["cpu"]

"""WebGPU at every prompt length from 1 to 512, as it ships, against onnxruntime on the CPU.

Every position's logits are compared, and the token that follows a prompt at each length up
to three steps, and around the ends of longer ones: padding, masks and positions go wrong
there or nowhere.  ``TABWRIGHT_EVERY_LENGTH=1`` takes each of the 512 (minutes).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from browser_harness.plan import PAGE
from exporter.pipeline import export
from targets import find_targets
from tests.decoder import Decoder
from tests.families import Tiny, write_family
from tests.harness_page import harness_tab

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

TARGET = "webgpu-q4"
LONGEST = 512
#: Two heads' groups, hundreds of tokens, one layer: quick on a software GPU.
SMALL = Tiny(
    "llama",
    {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
    },
)
TOKENS = np.random.default_rng(13).integers(3, SMALL.settings["vocab_size"], LONGEST)
STEP = 16
LENGTHS = (
    tuple(range(1, LONGEST + 1))
    if os.environ.get("TABWRIGHT_EVERY_LENGTH")
    else (
        *range(1, 3 * STEP + 2),
        *(
            end + off
            for end in (64, 128, 256, LONGEST)
            for off in (-1, 0, 1)
            if end + off <= LONGEST
        ),
    )
)
#: The plain loop pads nothing: it goes wrong where a step ends, or not at all.
FED = {"resident": LENGTHS, "plain": tuple(n for n in LENGTHS if n % STEP in (0, 1, STEP - 1))}
_LOAD = """async (loop) => {
  const { load } = await import("/bundle/runtime/tabwright.js");
  globalThis.model = await load("/bundle/manifest.json", {
    target: "webgpu-q4", threads: 1, worker: false, store: "none", selfCheck: false, loop,
  });
  return model.info.loop;
}"""
_SCORE = """async (tokens) => {
  const rows = [];
  for await (const { logits } of model.score(tokens)) rows.push(...logits);
  return rows;
}"""
_FOLLOW = """async ([tokens, lengths]) => {
  const found = [];
  for (const length of lengths) {
    const prompt = tokens.slice(0, length);
    const made = model.generate(prompt, { maxNewTokens: 1, stopTokens: [] });
    for await (const { token } of made) found.push(token);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lengths")
    checkpoint = write_family(SMALL, folder / "checkpoint")
    out = folder / "bundle"
    export(checkpoint, find_targets([TARGET]), out, runtime=PAGE.parent / "bundle")
    return out


@pytest.fixture(scope="module")
def expected(bundle: Path) -> NDArray[np.float32]:
    """Logits [LONGEST, vocabulary]: each row is a prompt's last."""
    return Decoder(bundle, TARGET).step(TOKENS, 0)


@pytest.fixture(scope="module")
def seen(bundle: Path) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with harness_tab({"/bundle": bundle}, "software") as (tab, _):

            async def ask(script: str, given: Any) -> Any:
                return await tab.evaluate(script, given, seconds=900, doing="feeding prompts")

            tokens = TOKENS.tolist()
            for loop, lengths in FED.items():
                assert await ask(_LOAD, loop) == loop
                found[loop] = await ask(_FOLLOW, [tokens, lengths])
                found[f"{loop} logits"] = await ask(_SCORE, tokens)
                await ask("() => model.dispose()", None)
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("loop", ["resident", "plain"])
def test_every_position_has_the_logits_of_onnxruntime(
    loop: str, seen: dict[str, Any], expected: NDArray[np.float32]
) -> None:
    found = np.array(seen[f"{loop} logits"], np.float32).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("loop", ["resident", "plain"])
def test_the_token_after_a_prompt_of_each_length_is_onnxruntime_s(
    loop: str, seen: dict[str, Any], expected: NDArray[np.float32]
) -> None:
    best = np.sort(expected, axis=-1)
    clear = best[:, -1] - best[:, -2] > 1e-2
    assert clear.mean() > 0.98
    chosen = dict(zip(FED[loop], seen[loop], strict=True))
    likeliest = expected.argmax(-1)
    wrong = {
        length: (token, int(likeliest[length - 1]))
        for length, token in chosen.items()
        if clear[length - 1] and token != likeliest[length - 1]
    }
    assert wrong == {}

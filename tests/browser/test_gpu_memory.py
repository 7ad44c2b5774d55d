"""What the runtime holds on the GPU: weights, a cache that grows in steps, little else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from browser_harness.plan import PAGE
from exporter.pipeline import export
from manifests.bundle import Manifest, read_manifest
from targets import find_targets
from tests.checkpoints import VARIANTS, write_checkpoint
from tests.decoder import Decoder
from tests.harness_page import harness_tab

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

TARGET = "webgpu-q4"
#: Positions that the cache grows by, and a text that outgrows the first two steps.
STEP = 16
PROMPT = [int(token) for token in np.random.default_rng(1).integers(3, 500, 14)]
TOKENS = 20
#: Leaves two of the positions of a budget of three steps.
LONG = [int(token) for token in np.random.default_rng(2).integers(3, 500, 3 * STEP - 2)]

_LOAD = """async (options) => {
  globalThis.cache = 0;
  const { createBuffer } = GPUDevice.prototype;
  GPUDevice.prototype.createBuffer = function (asked) {
    const buffer = createBuffer.call(this, asked);
    if (asked.label?.startsWith("past_key_values")) {
      cache += asked.size;
      const destroy = buffer.destroy.bind(buffer);
      buffer.destroy = () => {
        cache -= asked.size;
        destroy();
      };
    }
    return buffer;
  };
  const { load } = await import("/bundle/runtime/tabwright.js");
  globalThis.model = await load("/bundle/manifest.json", {
    target: "webgpu-q4", threads: 1, worker: false, store: "none", selfCheck: false, ...options,
  });
  globalThis.bytes = async () => [cache, (await tabwrightMeasure.memory()).gpu_bytes];
  return [model.info.loop, cache];
}"""
_GENERATE = """async ([prompt, options]) => {
  const tokens = [];
  const answer = model.generate(prompt, { stopTokens: [], ...options });
  try {
    for (;;) {
      const next = await answer.next();
      if (next.done) return [tokens, next.value, await bytes()];
      tokens.push(next.value.token);
    }
  } catch (error) {
    return [tokens, error.code, await bytes()];
  }
}"""
_DISPOSE = "async () => { await model.dispose(); return bytes(); }"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Weights far larger than what a step computes, as those of any real model.
    # The embedding makes most of them: SwiftShader takes its time by rows of a product.
    variant = replace(VARIANTS["bf16-untied"], hidden=512, intermediate=256, vocabulary=16384)
    folder = tmp_path_factory.mktemp("memory")
    checkpoint = write_checkpoint(variant, folder / "checkpoint")
    out = folder / "bundle"
    export(checkpoint, find_targets([TARGET]), out, runtime=PAGE.parent / "bundle")
    return out


def _position_bytes(manifest: Manifest) -> int:
    return sum(
        4 * int(np.prod([axis for axis in state.shape if isinstance(axis, int)]))
        for state in manifest.targets[TARGET].states
    )


@pytest.fixture(scope="module")
def seen(bundle: Path) -> dict[str, Any]:
    position = _position_bytes(read_manifest(bundle))
    memory = {"cacheGrowthBytes": STEP * position, "cacheBudgetBytes": 3 * STEP * position}

    async def run() -> dict[str, Any]:
        async with harness_tab({"/bundle": bundle}, "software") as (tab, _):

            async def ask(script: str, given: Any) -> Any:
                return await tab.evaluate(script, given, seconds=200, doing="running the model")

            return {
                "load": await ask(_LOAD, memory),
                "grown": await ask(_GENERATE, [PROMPT, {"maxNewTokens": TOKENS}]),
                "ended": await ask(_GENERATE, [LONG, {}]),
                "full": await ask(_GENERATE, [[*LONG, 5, 5], {}]),
                "dispose": await ask(_DISPOSE, None),
            }

    return asyncio.run(run())


def _weights(bundle: Path) -> int:
    """Bytes of the graph's constants on the GPU: scales become as wide as activations are."""
    graph = read_manifest(bundle).targets[TARGET].resident_graph
    assert graph is not None
    model = onnx.load(str(bundle / graph), load_external_data=False)
    cast = {node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    total = 0
    for tensor in model.graph.initializer:
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        total += int(np.prod(tensor.dims)) * (4 if tensor.name in cast else width)
    return total


def test_the_cache_follows_its_steps(seen: dict[str, Any], bundle: Path) -> None:
    step = STEP * _position_bytes(read_manifest(bundle))
    assert seen["load"] == ["resident", step]
    assert [seen[name][2][0] for name in ("grown", "ended")] == [3 * step, 3 * step]


def test_gpu_holds_the_weights_the_cache_and_five_per_cent(
    seen: dict[str, Any], bundle: Path
) -> None:
    for name in ("grown", "ended"):
        cache, everything = seen[name][2]
        needed = _weights(bundle) + cache
        assert needed < everything < 1.05 * needed, name


def test_tokens_over_a_growth_are_those_of_onnxruntime(seen: dict[str, Any], bundle: Path) -> None:
    decoder = Decoder(bundle, TARGET)
    tokens = list(PROMPT)
    fed = 0
    for _ in range(TOKENS):
        logits = decoder.step(np.array(tokens[fed:]), 1)
        fed = len(tokens)
        tokens.append(int(logits[-1].argmax()))
    assert seen["grown"][:2] == [tokens[len(PROMPT) :], "length"]


def test_the_budget_ends_an_answer_and_refuses_a_prompt(seen: dict[str, Any]) -> None:
    tokens, end, _ = seen["ended"]
    assert (len(tokens), end) == (2, "length")
    assert seen["full"][:2] == [[], "context-full"]


def test_dispose_frees_every_buffer(seen: dict[str, Any]) -> None:
    assert seen["dispose"] == [0, 0]

"""The loop that stays on the GPU, in a real Chromium, against onnxruntime and the plain loop.

The bundle, the runtime and the kernels are those that ship; the adapter is SwiftShader.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser_harness.plan import PAGE
from browser_harness.tab import Tab
from exporter.lower import passes
from exporter.lower.interface import keep_last_logits
from exporter.pipeline import export
from manifests.bundle import read_manifest
from targets import find_targets
from tests.decoder import Decoder
from tests.families import Tiny, write_family
from tests.harness_page import harness_tab

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

TARGET = "webgpu-q4"
TOKENS = 10
LAYERS = 2
#: Around the chunks of 16 that prompts are fed in; the last outgrows the cache as it goes on.
LENGTHS = (1, 15, 16, 17, 30)
SAMPLING = {"temperature": 0.9, "topK": 50, "topP": 0.9, "repetitionPenalty": 1.2, "seed": 11}

_LOAD = """async (options) => {
  const { load } = await import("/bundle/runtime/tabwright.js");
  globalThis.model = await load("/bundle/manifest.json", {
    target: "webgpu-q4", threads: 1, worker: false, store: "none", ...options,
  });
  globalThis.generate = async (prompt, options, onToken = () => undefined) => {
    const tokens = [];
    let end = null;
    try {
      for await (const { token } of model.generate(prompt, { stopTokens: [], ...options })) {
        tokens.push(token);
        onToken(tokens.length);
      }
    } catch (error) {
      end = error.code;
    }
    return { tokens, end };
  };
  const { loop, notes, fallbacks } = model.info;
  return { loop, notes, fallbacks: fallbacks.map(({ step, code }) => [step, code]) };
}"""
_GENERATE = "async ([prompt, options]) => generate(prompt, options)"
_ABORT = """async ([prompt, after]) => {
  const control = new AbortController();
  const stop = (made) => { if (made === after) control.abort(); };
  return generate(prompt, { maxNewTokens: 20, signal: control.signal }, stop);
}"""
#: An answer, and the same one ended by a text from its middle, which spans tokens.
_STOP_TEXT = """async ([prompt, options]) => {
  const show = async (more) => {
    let shown = "";
    const answer = model.generate(prompt, { stopTokens: [], ...options, ...more });
    for (;;) {
      const next = await answer.next();
      if (next.done) return [shown, next.value];
      shown += next.value.text;
    }
  };
  const [whole] = await show({});
  const stop = whole.slice(whole.length >> 1, (whole.length >> 1) + 3);
  return { whole, stop, stopped: await show({ stop }), again: await show({ stop: "never so" }) };
}"""
_COUNT = """async ([prompt, maxNewTokens]) => {
  const { gpuCalls } = tabwrightMeasure;
  const before = await gpuCalls();
  await generate(prompt, { maxNewTokens });
  const after = await gpuCalls();
  return Object.fromEntries(Object.keys(after).map((name) => [name, after[name] - before[name]]));
}"""
_SCORE = """async (tokens) => {
  const rows = [];
  for await (const { logits } of model.score(tokens, { chunk: 16 })) rows.push(...logits);
  return rows;
}"""


@dataclass(frozen=True)
class Seen:
    """What one load in the browser gave."""

    loaded: dict[str, Any]
    answers: dict[str, Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Two key heads: when the cache grows, each of them moves.
    settings = {"vocab_size": 128, "tie_word_embeddings": False, "initializer_range": 0.2}
    return write_family(Tiny("llama", settings), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(checkpoint, tmp_path_factory.mktemp("resident") / "bundle")


@pytest.fixture(scope="module")
def unrecordable(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose resident graph asks for what only the CPU can do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "_INTERFACES", dict.fromkeys(passes._INTERFACES, keep_last_logits))
        return _export(checkpoint, tmp_path_factory.mktemp("unrecordable") / "bundle")


def _export(checkpoint: Path, out: Path) -> Path:
    export(checkpoint, find_targets([TARGET]), out, runtime=PAGE.parent / "bundle")
    return out


def _prompt(length: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(length).integers(3, 128, length)]


def _in_browser(
    bundle: Path, options: dict[str, Any], questions: dict[str, tuple[str, Any]]
) -> Seen:
    async def run() -> Seen:
        async with harness_tab({"/bundle": bundle}, "software") as (tab, _):
            loaded = await _ask(tab, _LOAD, options)
            answers = {
                name: await _ask(tab, script, given) for name, (script, given) in questions.items()
            }
            await _ask(tab, "() => model.dispose()", None)
        return Seen(loaded, answers)

    return asyncio.run(run())


async def _ask(tab: Tab, script: str, given: Any) -> Any:
    return await tab.evaluate(script, given, seconds=120, doing="running the model")


@pytest.fixture(scope="module")
def resident(bundle: Path, greedy: list[int]) -> Seen:
    # Room for 32 positions at a time, so that the cache grows while texts are made.
    growth = 32 * _position_bytes(bundle)
    questions: dict[str, tuple[str, Any]] = {
        f"greedy {length}": (_GENERATE, [_prompt(length), {"maxNewTokens": TOKENS}])
        for length in LENGTHS
    }
    stop = {"maxNewTokens": TOKENS, "stopTokens": [greedy[3]]}
    sampled = {"maxNewTokens": TOKENS, **SAMPLING}
    return _in_browser(
        bundle,
        {"cacheGrowthBytes": growth},
        {
            **questions,
            "stopped": (_GENERATE, [_prompt(17), stop]),
            "aborted": (_ABORT, [_prompt(17), 2]),
            "again": (_GENERATE, [_prompt(17), {"maxNewTokens": TOKENS}]),
            "count few": (_COUNT, [_prompt(5), 2]),
            "count many": (_COUNT, [_prompt(5), 10]),
            "sampled": (_GENERATE, [_prompt(17), sampled]),
            "sampled again": (_GENERATE, [_prompt(17), sampled]),
            "sampled otherwise": (_GENERATE, [_prompt(17), {**sampled, "seed": 12}]),
            "stop text": (_STOP_TEXT, [_prompt(17), sampled]),
            "logits": (_SCORE, _prompt(33)),
        },
    )


@pytest.fixture(scope="module")
def plain(unrecordable: Path) -> Seen:
    sampled = {"maxNewTokens": TOKENS, **SAMPLING}
    questions = {
        "greedy": (_GENERATE, [_prompt(17), {"maxNewTokens": 3}]),
        "sampled": (_GENERATE, [_prompt(17), sampled]),
    }
    return _in_browser(unrecordable, {}, questions)


@pytest.fixture(scope="module")
def greedy(bundle: Path) -> list[int]:
    return _native(bundle, _prompt(17), TOKENS)


def _position_bytes(bundle: Path) -> int:
    states = read_manifest(bundle).targets[TARGET].states
    return sum(
        4 * int(np.prod([axis for axis in state.shape if isinstance(axis, int)]))
        for state in states
    )


def _native(bundle: Path, prompt: list[int], count: int) -> list[int]:
    """What onnxruntime chooses with the bundle's conventional graph."""
    decoder = Decoder(bundle, TARGET)
    tokens = list(prompt)
    fed = 0
    for _ in range(count):
        logits = decoder.step(np.array(tokens[fed:]), 1)
        fed = len(tokens)
        tokens.append(int(logits[-1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("length", LENGTHS)
def test_greedy_tokens_are_those_of_onnxruntime(length: int, resident: Seen, bundle: Path) -> None:
    assert resident.loaded == {"loop": "resident", "notes": [], "fallbacks": []}
    expected = _native(bundle, _prompt(length), TOKENS)
    assert resident.answers[f"greedy {length}"]["tokens"] == expected


def test_logits_of_every_position_are_those_of_onnxruntime(resident: Seen, bundle: Path) -> None:
    found = np.array(resident.answers["logits"], np.float32).reshape(33, -1)
    np.testing.assert_allclose(
        found, Decoder(bundle, TARGET).step(np.array(_prompt(33)), 0), atol=2e-4
    )


def test_nothing_comes_after_a_stop_token_or_an_abort(resident: Seen, greedy: list[int]) -> None:
    # The GPU was ahead of both; what it made is in no later text either.
    assert greedy[3] not in greedy[:3]
    assert resident.answers["stopped"] == {"tokens": greedy[:3], "end": None}
    assert resident.answers["aborted"] == {"tokens": greedy[:2], "end": "aborted"}
    assert resident.answers["again"]["tokens"] == greedy


def test_nothing_of_a_stop_text_is_shown(resident: Seen) -> None:
    answer = resident.answers["stop text"]
    whole, stop = answer["whole"], answer["stop"]
    assert len(stop) == 3
    assert answer["stopped"] == [whole[: whole.index(stop)], "stop"]
    assert answer["again"] == [whole, "length"]


def test_a_token_costs_the_gpu_little_and_the_page_eight_bytes(resident: Seen) -> None:
    few, many = resident.answers["count few"], resident.answers["count many"]
    tokens = 8
    cost = {name: (many[name] - few[name]) / tokens for name in few}
    assert cost["dispatches"] <= 9 * LAYERS + 7
    assert cost["submits"] <= 2
    assert cost["read_bytes"] == 8
    for created in ("bind_groups", "buffers", "buffer_bytes"):
        assert few[created] == many[created] == 0


def test_what_cannot_be_recorded_runs_the_plain_way_and_says_so(
    plain: Seen, greedy: list[int]
) -> None:
    assert plain.loaded["loop"] == "plain"
    assert plain.loaded["fallbacks"] == [["plain-loop", "session-failed"]]
    [note] = plain.loaded["notes"]
    assert note.startswith("decodes with the plain loop (webgpu-q4): ONNX Runtime refused")
    assert plain.answers["greedy"]["tokens"] == greedy[:3]


def test_sampling_repeats_with_its_seed_and_is_the_plain_loops(resident: Seen, plain: Seen) -> None:
    sampled = resident.answers["sampled"]
    assert sampled == resident.answers["sampled again"]
    assert sampled != resident.answers["sampled otherwise"]
    assert sampled == plain.answers["sampled"]

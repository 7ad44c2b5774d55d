"""The real transformers.js opens a bundle: offline, on WebGPU, with the bundle's own settings.

Its answers are compared with transformers' and onnxruntime's; the adapter is SwiftShader.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from browser_harness.plan import PAGE
from exporter.pipeline import export
from manifests.bundle import read_manifest
from targets import TARGETS
from tests.checkpoints import SPECIAL_TOKENS
from tests.decoder import Decoder
from tests.families import Tiny, write_family
from tests.harness_page import harness_tab

PEERS = Path(__file__).parents[1] / "bench" / "peers"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(
        not (PEERS / "node_modules").is_dir(), reason="run 'npm ci' in tests/bench/peers"
    ),
]

TARGET = "webgpu-q4"
TOKENS = 12
PROMPT = [1, 17, 300, 42, 511, 7, 7, 99]
TEXTS = ("The quick brown fox", "كتب المهندس رسالة قصيرة", f"  two  spaces {SPECIAL_TOKENS[1]}")
MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "مرحبا"}]


@dataclass(frozen=True)
class Seen:
    """What transformers.js made of the bundle."""

    tokens: list[int]
    texts: list[list[int]]
    chat: str
    console: tuple[str, ...]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"tie_word_embeddings": False, "initializer_range": 0.2}
    return write_family(Tiny("llama", settings), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    # Several shards, whose names transformers.js makes up by itself.
    targets = (replace(TARGETS[TARGET], max_shard_bytes=100_000), TARGETS["wasm-q4"])
    export(checkpoint, targets, out, runtime=PAGE.parent / "bundle")
    return out


@pytest.fixture(scope="module")
def seen(bundle: Path) -> Seen:
    return asyncio.run(_ask(bundle))


async def _ask(bundle: Path) -> Seen:
    async with harness_tab({"/bundle": bundle, "/peers": PEERS}, "software") as (tab, _):

        async def ask(method: str, *given: Any) -> Any:
            return await tab.call("peer", method, *given, seconds=120, doing=method)

        peer = "async () => { await import('/peers/transformers.js'); }"
        await tab.evaluate(peer, seconds=60, doing="importing transformers.js")
        # No device and no dtype: config.json has them.
        await ask("load", "bundle", {})
        result = await ask("generate", PROMPT, TOKENS)
        return Seen(
            tokens=result["tokens"],
            texts=await ask("tokenize", list(TEXTS)),
            chat=await ask("chat", MESSAGES),
            console=tuple(tab.console),
        )


def test_its_greedy_tokens_are_those_of_onnxruntime(seen: Seen, bundle: Path) -> None:
    assert len(read_manifest(bundle).weights["q4"].shards) > 2
    decoder = Decoder(bundle, TARGET)
    expected: list[int] = []
    fed = PROMPT
    for _ in range(TOKENS):
        expected.append(int(decoder.step(np.array(fed), 1)[-1].argmax()))
        fed = expected[-1:]
    assert len(set(expected)) > 3
    assert seen.tokens == expected


def test_its_tokenizer_and_chat_are_those_of_transformers(seen: Seen, checkpoint: Path) -> None:
    untyped: Any = transformers
    tokenizer = untyped.AutoTokenizer.from_pretrained(checkpoint)
    assert seen.texts == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert seen.chat == tokenizer.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True
    )


def test_nothing_failed_under_the_sites_content_security_policy(seen: Seen) -> None:
    assert seen.console == ()

"""A bundle and a reference for the fake page, whose language has eight tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from manifests.agreement import Agreement
from manifests.bundle import (
    File,
    Manifest,
    Model,
    Range,
    Source,
    SourceFile,
    TargetEntry,
    Tensor,
    WeightSet,
)
from manifests.reference import (
    Answers,
    ChatCase,
    Device,
    Greedy,
    PrefillSpeed,
    Reference,
    ScoredText,
    Speed,
    TokenCase,
)

VOCABULARY = 8
WEIGHTS = bytes(1000)
FILES = {
    "index.html": b"<!doctype html>",
    "onnx/model_q4.onnx": bytes(50),
    "onnx/model_q4_wasm.onnx": bytes(60),
    "onnx/model_q4.onnx_data": WEIGHTS,
    "runtime/tabwright.js": bytes(300),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def expected_logits(ids: tuple[int, ...]) -> NDArray[np.float32]:
    """What the fake page answers, worked out here: 4 for the next token, id / 8 elsewhere."""
    elsewhere = np.arange(VOCABULARY, dtype=np.float32) / np.float32(VOCABULARY)
    rows: NDArray[np.float32] = np.tile(elsewhere, (len(ids), 1))
    rows[np.arange(len(ids)), (np.array(ids) + 1) % VOCABULARY] = 4
    return rows


def count_up(last: int, tokens: int) -> tuple[int, ...]:
    return tuple((last + 1 + step) % VOCABULARY for step in range(tokens))


def write_bundle(bundle: Path, targets: tuple[str, ...], *, context_length: int = 64) -> Manifest:
    for path, data in FILES.items():
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_bytes(data)
    shard = "onnx/model_q4.onnx_data"
    manifest = Manifest(
        model=Model(
            name="counter",
            architecture="CounterForCausalLM",
            model_type="counter",
            parameters=64,
            vocab_size=VOCABULARY,
            layers=1,
            context_length=context_length,
            eos_token_ids=(0,),
        ),
        source=Source(
            format="safetensors",
            files=(SourceFile(path="model.safetensors", size=1, sha256=sha256(b"m")),),
            digest=sha256(b"source"),
        ),
        chunk_size=1024,
        files=tuple(
            File(
                path=path,
                media_type="application/octet-stream",
                size=len(data),
                sha256=sha256(data),
                chunks=(sha256(data),),
            )
            for path, data in FILES.items()
        ),
        targets={
            name: TargetEntry(
                graph="onnx/model_q4_wasm.onnx" if "wasm" in name else "onnx/model_q4.onnx",
                weights="q4",
                execution_provider="wasm" if "wasm" in name else "webgpu",
                activation_dtype="float32",
                states=(),
                features=(),
                limits={},
                session_config={},
            )
            for name in targets
        },
        weights={
            "q4": WeightSet(
                shards=(shard,),
                digest=sha256(b"weights"),
                tensors=(
                    Tensor(
                        name="model.layers.0.linear.weight",
                        role="linear",
                        shape=(8, 8),
                        source="int4 g8 symmetric",
                        outcome="exact",
                        bits=4,
                        block_size=8,
                        codes=Range(file=shard, offset=0, length=600),
                        scales=Range(file=shard, offset=600, length=100),
                    ),
                    Tensor(
                        name="model.norm.weight",
                        role="float",
                        shape=(8,),
                        source="float32",
                        outcome="exact",
                        values=Range(file=shard, offset=704, length=200),
                    ),
                ),
            )
        },
        tokenizer="tokenizer.json",
        tokenizer_config="tokenizer_config.json",
        tools={},
    )
    (bundle / "manifest.json").write_bytes(manifest.sealed_bytes())
    return manifest


def write_reference(path: Path, manifest: Manifest) -> Reference:
    texts = (
        ScoredText(name="first", language="en", ids=tuple(n % 8 for n in range(40))),
        ScoredText(name="second", language="en", ids=(1, 2, 3)),
        ScoredText(name="third", language="ar", ids=(7, 5, 3, 1)),
    )
    logits = {f"q4.{text.name}": expected_logits(text.ids) for text in texts}
    save_file(logits, path.with_suffix(".safetensors"))
    reference = Reference(
        source_digest=manifest.source.digest,
        tokenizer_digest=sha256(FILES["tokenizer.json"]),
        device=Device(device="cpu", name="test", threads=1, versions={}),
        tokens=(
            TokenCase(name="right", language="en", text="ab", ids=(97 % 8, 98 % 8)),
            TokenCase(name="wrong", language="ar", text="ab", ids=(97 % 8, 5)),
        ),
        chats=(
            ChatCase(
                name="chat",
                language="en",
                messages=({"role": "u", "content": "a"},),
                rendered="u:a\n",
                ids=tuple(ord(letter) % 8 for letter in "u:a\n"),
            ),
        ),
        scored=texts,
        answers={
            "q4": Answers(
                weights_digest=manifest.weights["q4"].digest,
                logits={text.name: f"q4.{text.name}" for text in texts},
                greedy=(
                    Greedy(
                        name="long",
                        language="en",
                        prompt=(1, 2, 3, 4),
                        tokens=count_up(4, 6),
                        runners_up=count_up(5, 6),
                        margins=(3.0,) * 6,
                    ),
                    Greedy(
                        name="short",
                        language="en",
                        prompt=(2, 3),
                        tokens=(*count_up(3, 4), 3),
                        runners_up=count_up(4, 5),
                        margins=(3.0,) * 4 + (2.5,),
                    ),
                ),
                export_loss=Agreement(
                    positions=47,
                    top1=1.0,
                    max_abs_logit=0.0,
                    mean_abs_logit=0.0,
                    kl_mean=0.0,
                    kl_max=0.0,
                    perplexity_reference=2.0,
                    perplexity=2.0,
                ),
            )
        },
        logits_file=path.with_suffix(".safetensors").name,
        logits_sha256=sha256(path.with_suffix(".safetensors").read_bytes()),
        speed=Speed(
            dtype="float32",
            load_ms=1.0,
            prefill=(PrefillSpeed(prompt_tokens=16, ms=(1.0,)),),
            decode_ms=(1.0,),
            peak_bytes=1,
            peak_kind="process-rss",
        ),
    )
    path.write_text(reference.to_json(), "utf-8")
    return reference

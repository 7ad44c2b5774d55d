"""What compression cost, told by a reference that is made with the original."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.pipeline import export
from exporter.reference.errors import OriginalMismatch
from manifests.reference import Reference
from targets import find_targets

TEXT = {"name": "one", "language": "en", "text": "A browser tab has little memory."}


@pytest.fixture(scope="module")
def compressed(
    tiny_checkpoint: Callable[[str], Path], page: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, dict[str, Any]]:
    """A checkpoint of 4 bits, its bundle, and how a quick reference of it is made."""
    folder = tmp_path_factory.mktemp("compressed")
    checkpoint = tiny_checkpoint("w4a16-g32")
    export(checkpoint, find_targets(["wasm-q4"]), folder / "bundle", runtime=page)
    suite = folder / "suite.json"
    suite.write_text(
        json.dumps({"tokens": [TEXT], "chats": [], "scored": [TEXT], "greedy": []}), "utf-8"
    )
    tasks = folder / "tasks.jsonl"
    tasks.write_text(json.dumps({"question": "1 + 1?", "choices": ["1", "2"], "answer": 1}))
    quick = {"suite": suite, "tasks": tasks, "repetitions": 1, "decode_tokens": 1, "device": "cpu"}
    return checkpoint, folder / "bundle", quick


def test_the_loss_is_that_of_transformers_models(
    compressed: tuple[Path, Path, dict[str, Any]],
    tiny_checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from exporter.reference.make import make_reference
    from exporter.reference.model import load_checkpoint, read_config

    checkpoint, bundle, quick = compressed
    out = tmp_path / "reference.json"
    original = tiny_checkpoint("bf16")
    make_reference(checkpoint, bundle, out, original=original, **quick)
    reference = Reference.load(out)
    told = reference.original
    assert told is not None
    assert told.questions is not None
    assert [answer.line for answer in told.questions.answers] == [1]
    auto: Any = AutoModelForCausalLM
    ids = torch.tensor([reference.scored[0].ids])
    with torch.inference_mode():
        whole = auto.from_pretrained(original, dtype=torch.float32)(input_ids=ids).logits[0]
        model = load_checkpoint(checkpoint, read_config(checkpoint), torch.float32, "cpu")
        packed = model(input_ids=ids).logits[0]
    kl = torch.nn.functional.kl_div(
        packed.log_softmax(-1), whole.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert told.compression_loss.kl_mean == pytest.approx(float(kl), rel=1e-3)
    assert told.compression_loss.kl_mean > 1e-4
    # The reference's own nats are what its perplexity is made of.
    (answers,) = reference.answers.values()
    nats = answers.nll["one"]
    assert len(nats) == len(reference.scored[0].ids) - 1
    mean = math.exp(sum(nats) / len(nats))
    assert answers.export_loss.perplexity == pytest.approx(mean, rel=1e-9)


def test_a_model_of_other_tokens_is_no_original(
    compressed: tuple[Path, Path, dict[str, Any]],
    tiny_checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    from exporter.reference.make import make_reference

    checkpoint, bundle, quick = compressed
    other = Path(shutil.copytree(tiny_checkpoint("bf16"), tmp_path / "other"))
    tokenizer = json.loads((other / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:10]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(OriginalMismatch, match="tokenises the text 'one' differently"):
        make_reference(checkpoint, bundle, tmp_path / "r.json", original=other, **quick)
    assert not (tmp_path / "r.json").exists()

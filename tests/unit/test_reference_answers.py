"""Greedy continuations against transformers' own generation; speed and memory samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests.progress import silent


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Callable[[str], Path]) -> Any:
    import torch

    from exporter.reference.model import load_checkpoint, read_config

    path = tiny_checkpoint("bf16")
    return load_checkpoint(path, read_config(path), torch.float32, "cpu")


def prompt(*ids: int, tokens: int) -> Any:
    from exporter.reference.prompts import GreedyPrompt

    return GreedyPrompt("p", "en", ids, tokens)


def test_greedy_continuation_is_that_of_generate(model: Any) -> None:
    import torch

    from exporter.reference.answers import continue_greedily

    ids = (40, 300, 41, 42, 200)
    found = continue_greedily(model, prompt(*ids, tokens=12), ())
    inputs = torch.tensor([ids])
    whole = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        generation_config=None,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=-1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert list(found.tokens) == whole.sequences[0, len(ids) :].tolist()
    pairs = zip(found.margins, found.runners_up, whole.logits, strict=True)
    for margin, runner_up, logits in pairs:
        first, second = logits[0].sort(descending=True).values[:2].tolist()
        assert margin == pytest.approx(first - second, abs=1e-4)
        assert runner_up == logits[0].sort(descending=True).indices[1]


def test_an_end_token_is_the_last(model: Any) -> None:
    from exporter.reference.answers import continue_greedily

    free = continue_greedily(model, prompt(40, 300, tokens=8), ()).tokens
    stopped = continue_greedily(model, prompt(40, 300, tokens=8), {free[3]}).tokens
    assert stopped == free[: free.index(free[3]) + 1]


def test_scores_are_a_plain_forward_pass(model: Any) -> None:
    import numpy as np
    import torch

    from exporter.reference.answers import compare, score
    from manifests.reference import ScoredText

    text = ScoredText(name="t", language="en", ids=(5, 90, 300, 7, 41))
    logits = score(model, (text,), "score", silent)
    ids = torch.tensor([text.ids])
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert logits["t"].shape == (5, 512)
    agreement = compare((text,), logits, {"t": logits["t"] + np.float32(0.5)})
    assert agreement.perplexity_reference == pytest.approx(np.exp(loss), rel=1e-4)
    assert agreement.max_abs_logit == pytest.approx(0.5, abs=1e-4)
    assert agreement.top1 == 1
    assert agreement.positions == 5


def test_every_timed_round_leaves_its_samples(model: Any) -> None:
    from exporter.reference.speed import measure_pace, prompts_of

    prompts = prompts_of((5, 6, 7), (4, 9))
    assert prompts == ((5, 6, 7, 5), (5, 6, 7, 5, 6, 7, 5, 6, 7))
    calls: list[tuple[str, int, int]] = []
    pace = measure_pace(
        model,
        prompts,
        decode_tokens=3,
        repetitions=2,
        progress=lambda *call: calls.append(call),
    )
    assert [(speed.prompt_tokens, len(speed.ms)) for speed in pace.prefill] == [(4, 2), (9, 2)]
    assert len(pace.decode_ms) == 2 * 3
    assert min(pace.decode_ms) > 0
    assert calls[-1] == ("time PyTorch", 3, 3)


def test_peak_memory_sees_what_is_gone_at_the_end() -> None:
    import time

    import numpy as np
    import psutil

    from exporter.reference.speed import PeakMemory

    size = 96 << 20
    before = psutil.Process().memory_info().rss
    with PeakMemory("cpu") as peak:
        block = np.ones(size, np.uint8)
        for _ in range(1000):
            if peak.bytes >= before + size // 2:
                break
            time.sleep(0.01)
        del block
    assert peak.bytes >= before + size // 2

"""What a model answers: teacher-forced logits and greedy continuations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exporter.reference.prompts import GreedyPrompt
from manifests.agreement import Agreement, AgreementBuilder, log_softmax
from manifests.progress import Progress
from manifests.reference import Greedy, ScoredText

Logits = dict[str, NDArray[np.float32]]


@torch.inference_mode()
def score(model: Any, texts: tuple[ScoredText, ...], phase: str, progress: Progress) -> Logits:
    """Logits float32 [positions, vocabulary] of each text, by name."""
    found: Logits = {}
    for done, text in enumerate(texts):
        progress(phase, done, len(texts))
        ids = torch.tensor([text.ids], device=model.device)
        found[text.name] = model(input_ids=ids, use_cache=False).logits[0].float().cpu().numpy()
    progress(phase, len(texts), len(texts))
    return found


@torch.inference_mode()
def continue_greedily(model: Any, prompt: GreedyPrompt, end: Iterable[int]) -> Greedy:
    """Continue ``prompt`` as far as it says; a token of ``end`` is the last."""
    stops = set(end)
    chosen: list[int] = []
    runners_up: list[int] = []
    margins: list[float] = []
    fed, cache = list(prompt.ids), None
    while len(chosen) < prompt.tokens and not stops.intersection(chosen[-1:]):
        ids = torch.tensor([fed], device=model.device)
        step = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = step.logits[0, -1].float()
        best = logits.topk(2)
        first, second = best.values.tolist()
        chosen.append(int(logits.argmax()))
        # Of equal logits argmax and topk need not name the same one first.
        runners_up.append(next(n for n in best.indices.tolist() if n != chosen[-1]))
        margins.append(first - second)
        fed, cache = chosen[-1:], step.past_key_values
    return Greedy(
        name=prompt.name,
        language=prompt.language,
        prompt=prompt.ids,
        tokens=tuple(chosen),
        runners_up=tuple(runners_up),
        margins=tuple(margins),
    )


def nll(text: ScoredText, logits: NDArray[np.float32]) -> tuple[float, ...]:
    """Nats of each token of ``text`` after the first."""
    following = np.array(text.ids[1:], dtype=np.int64)
    chances = log_softmax(logits[: len(following)])
    return tuple((-chances[np.arange(len(following)), following]).tolist())


def compare(texts: tuple[ScoredText, ...], reference: Logits, measured: Logits) -> Agreement:
    """How far ``measured`` is from ``reference`` over the same texts."""
    builder = AgreementBuilder()
    for text in texts:
        following = np.array(text.ids[1:], dtype=np.int64)
        builder.add(text.name, 0, reference[text.name], measured[text.name], following)
    return builder.build()

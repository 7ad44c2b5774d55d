"""Ask PyTorch questions with choices."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from manifests.progress import Progress
from manifests.questions import Answers, Questions

_PHASE = "questions in PyTorch"


@torch.inference_mode()
def ask(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    context_length: int,
    progress: Progress,
) -> Answers:
    """The model's answers, each choice's letter scored after the whole prompt."""
    found: dict[int, tuple[float, ...]] = {}
    cut = 0
    for index, question in enumerate(questions.questions):
        progress(_PHASE, index, len(questions.questions))
        context = len(tokenizer(question.prompt)["input_ids"])
        whole = [
            tokenizer(question.prompt + letter)["input_ids"] for letter in question.continuations
        ]
        cut += max(map(len, whole)) > context_length + 1
        found[index] = tuple(_logprob(model, ids, context, context_length) for ids in whole)
    progress(_PHASE, len(questions.questions), len(questions.questions))
    return questions.answered(found, cut)


def _logprob(model: Any, ids: list[int], context: int, context_length: int) -> float:
    """Nats of the ids from place ``context`` on."""
    kept = torch.tensor([ids[-(context_length + 1) :]], device=model.device)
    logits = model(input_ids=kept[:, :-1], use_cache=False).logits[0].float()
    chances = logits.log_softmax(-1).gather(1, kept[0, 1:, None])[:, 0]
    return float(chances[len(chances) - (len(ids) - context) :].sum())

"""What compression cost: the uncompressed model against the checkpoint, both in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from exporter.checkpoint import open_checkpoint
from exporter.reference.answers import Logits, compare, score
from exporter.reference.errors import OriginalMismatch
from exporter.reference.model import DeviceChoice
from exporter.reference.models import Models, models_of
from exporter.reference.prompts import Prompts, open_tokenizer, tokenise
from exporter.reference.questions import ask
from exporter.reference.suite import Suite
from manifests.bundle import Model
from manifests.progress import Progress
from manifests.questions import Questions
from manifests.reference import Original


@dataclass(frozen=True)
class Uncompressed:
    """The model that a checkpoint was compressed from, ready to be asked.

    Attributes:
        digest: of its files, as a bundle's manifest tells its source's.
    """

    digest: str
    models: Models
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def open(
        cls, path: Path, prompts: Prompts, texts: Suite, model: Model, device: DeviceChoice
    ) -> Uncompressed:
        """Open it, and make sure that token ids mean to it what they mean to the checkpoint.

        Raises:
            OriginalMismatch: another vocabulary, or a text comes out as other tokens.
            BadInput: it cannot be read.
        """
        opened = open_checkpoint(path)
        if opened.decoder.vocab_size != model.vocab_size:
            reason = f"{opened.decoder.vocab_size} tokens, the checkpoint has {model.vocab_size}"
            raise OriginalMismatch(path, reason)
        own = tokenise(path, texts, model.context_length)
        for ours, theirs in zip(own.tokens, prompts.tokens, strict=True):
            if ours.ids != theirs.ids:
                raise OriginalMismatch(path, f"it tokenises the text '{ours.name}' differently")
        return cls(
            opened.source().digest, models_of(path, opened, device, None), open_tokenizer(path)
        )

    def answer(
        self,
        prompts: Prompts,
        checkpoint: Logits,
        questions: Questions | None,
        context: int,
        progress: Progress,
    ) -> Original:
        """Score and ask it; ``checkpoint`` holds the checkpoint's logits of the same texts."""
        model = self.models.checkpoint(torch.float32)
        expected = score(model, prompts.scored, "score original in PyTorch", progress)
        answered = None
        if questions is not None:
            answered = ask(model, self.tokenizer, questions, context, progress)
        return Original(
            digest=self.digest,
            compression_loss=compare(prompts.scored, expected, checkpoint),
            questions=answered,
        )

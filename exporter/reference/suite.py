"""What is asked of every model: the texts in ``suite.json``.

They are data, so that texts in another language are entries there and no code.  Texts
with ``messages`` go through the checkpoint's chat template; a model without one
(a base model) is not asked them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from manifests.base import Schema

SUITE = Path(__file__).with_name("suite.json")


class Text(Schema):
    """A text, or a conversation to be rendered as one."""

    name: str
    language: str
    text: str | None = None
    messages: tuple[dict[str, str], ...] = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (not self.messages):
            raise ValueError(f"{self.name}: give either text or messages")
        return self


class Suite(Schema):
    """Texts by what is done with them.

    ``tokens`` are tokenised; ``chats`` rendered and tokenised, ready for the
    model's reply; ``scored`` teacher-forced, position by position; ``greedy``
    continued.
    """

    tokens: tuple[Text, ...]
    chats: tuple[Text, ...]
    scored: tuple[Text, ...]
    greedy: tuple[Text, ...]

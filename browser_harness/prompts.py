"""What the model is asked where only its speed counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from browser_harness.client import MeasurePage

#: Tokenised by the page where there is no reference to take token ids from.
TEXT = "A measured sentence says little, but it says the same thing every time it is read. "


def repeat(ids: Sequence[int], length: int) -> tuple[int, ...]:
    """``length`` tokens: ``ids`` as often as needed.

    Speed does not depend on what is said; the reference makes its prompts the same way.
    """
    return (tuple(ids) * (length // len(ids) + 1))[:length]


@dataclass(frozen=True)
class Prompts:
    """Where prompts come from.

    Attributes:
        ids: tokens to repeat; empty lets the page tokenise :data:`TEXT`.
        first: the prompt after a load, where it must be this one.
    """

    ids: tuple[int, ...] = ()
    first: tuple[int, ...] = ()

    async def take(self, page: MeasurePage, length: int) -> tuple[int, ...]:
        """A prompt of ``length`` tokens."""
        return repeat(self.ids or (await page.tokenize([TEXT]))[0], length)

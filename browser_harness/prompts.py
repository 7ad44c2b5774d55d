"""What the model is asked where only its speed counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from browser_harness.client import MeasurePage
from manifests.work import TextYield

#: Tokenised by the page where there is no reference to take token ids from.
TEXT = "A measured sentence says little, but it says the same thing every time it is read. "

#: The same in two languages (Universal Declaration of Human Rights, article 1): how many
#: tokens it takes tells what a token is worth in each.
TEXTS = MappingProxyType(
    {
        "en": "All human beings are born free and equal in dignity and rights. They are endowed "
        "with reason and conscience and should act towards one another in a spirit of "
        "brotherhood.",
        "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن "
        "يعامل بعضهم بعضا بروح الإخاء.",
    }
)


async def count_texts(page: MeasurePage) -> tuple[TextYield, ...]:
    """How many tokens each of :data:`TEXTS` takes."""
    found = await page.tokenize(list(TEXTS.values()))
    return tuple(
        TextYield(language=name, tokens=len(ids), characters=len(text), words=len(text.split()))
        for (name, text), ids in zip(TEXTS.items(), found, strict=True)
    )


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

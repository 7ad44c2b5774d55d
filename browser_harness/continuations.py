"""How likely a continuation is after a context: what tasks with choices ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from browser_harness.client import MeasurePage


@dataclass(frozen=True)
class Likelihood:
    """Summed log-probability in nats, and whether each token was the likeliest."""

    logprob: float
    greedy: bool


@dataclass(frozen=True)
class Pass:
    """One run through the model, and the continuations that it answers, by their index."""

    fed: tuple[int, ...]
    continuations: Mapping[int, tuple[int, ...]]


def plan_passes(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], context_length: int
) -> list[Pass]:
    """The runs that answer every pair of a context's and a continuation's token ids.

    Continuations that differ in their last token only, such as the letters of one
    question, are one run.  What is too long for the model loses the context's beginning.
    """
    found: dict[tuple[int, ...], dict[int, tuple[int, ...]]] = defaultdict(dict)
    for index, (context, continuation) in enumerate(pairs):
        fed = (*context, *continuation)[-(context_length + 1) :][:-1]
        found[fed][index] = tuple(continuation)
    return [Pass(fed, continuations) for fed, continuations in found.items()]


async def run_pass(page: MeasurePage, planned: Pass) -> dict[int, Likelihood]:
    """The likelihood of each of the pass's continuations, by their index."""
    wanted = [
        (len(planned.fed) - len(continuation) + place, token)
        for continuation in planned.continuations.values()
        for place, token in enumerate(continuation)
    ]
    chances = iter(await page.logprobs(planned.fed, wanted))
    found = {}
    for index, continuation in planned.continuations.items():
        own = [(token, next(chances)) for token in continuation]
        found[index] = Likelihood(
            sum(chance.logprob for _, chance in own),
            all(chance.likeliest == token for token, chance in own),
        )
    return found

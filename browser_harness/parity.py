"""Does the browser answer what PyTorch answers, with the same weights?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal

import numpy as np

from browser_harness.answers import OpenReference
from browser_harness.client import MeasurePage, PageContractBroken
from browser_harness.plan import Plan, block_rows
from manifests.agreement import NEAR_TIE, Agreement, AgreementBuilder
from manifests.page import GenerateResult
from manifests.progress import Progress
from manifests.reference import Answers, Greedy, Reference, ScoredText
from manifests.report import GreedyCheck, TokenCheck

RoundTrip = Literal["whole", "same", "differs"]


def first_difference(expected: Sequence[object], got: Sequence[object]) -> int | None:
    """Index of the first place where two sequences differ; ``None`` when they are equal."""
    for index, (one, other) in enumerate(zip(expected, got, strict=False)):
        if one != other:
            return index
    return None if len(expected) == len(got) else min(len(expected), len(got))


def _check(
    name: str, language: str, difference: int | None, returned: RoundTrip | None = None
) -> TokenCheck:
    return TokenCheck(
        name=name,
        language=language,
        equal=difference is None,
        first_difference=difference,
        round_trip=returned,
    )


async def check_tokens(page: MeasurePage, reference: Reference) -> tuple[TokenCheck, ...]:
    """The page's tokenizer against transformers', there and back."""
    found = await page.tokenize([case.text for case in reference.tokens])
    texts = await page.detokenize([case.ids for case in reference.tokens])
    return tuple(
        _check(
            case.name,
            case.language,
            first_difference(case.ids, ids),
            None if case.decoded is None else round_trip(case.text, case.decoded, text),
        )
        for case, ids, text in zip(reference.tokens, found, texts, strict=True)
    )


def round_trip(text: str, expected: str, got: str) -> RoundTrip:
    """What ``got``, which the page decoded, is beside ``text`` and transformers' ``expected``."""
    if got != expected:
        return "differs"
    return "whole" if got == text else "same"


async def check_chats(page: MeasurePage, reference: Reference) -> tuple[TokenCheck, ...]:
    """The page's chat template against transformers'.

    Ids that agree over a rendering that does not are no agreement: the first
    differing character is told then.
    """
    checks = []
    for case in reference.chats:
        got = await page.chat(case.messages)
        difference = first_difference(case.ids, got.ids)
        if difference is None:
            difference = first_difference(case.rendered, got.rendered)
        checks.append(_check(case.name, case.language, difference))
    return tuple(checks)


def choose_texts(texts: Sequence[ScoredText], most: int | None) -> tuple[ScoredText, ...]:
    """At most ``most`` texts, taking the languages in turn so that few are still mixed."""
    by_language: dict[str, list[ScoredText]] = defaultdict(list)
    for text in texts:
        by_language[text.language].append(text)
    turns = zip_longest(*by_language.values())
    return tuple(text for turn in turns for text in turn if text is not None)[:most]


async def score(
    page: MeasurePage,
    reference: OpenReference,
    weights: str,
    plan: Plan,
    *,
    progress: Progress,
    phase: str,
) -> tuple[Agreement, dict[str, Agreement]]:
    """Teacher-force the reference's texts; the agreement over all, and by language.

    Holds one block of logits of each side at a time.
    """
    names = reference.answers(weights).logits
    texts = choose_texts(reference.document.scored, plan.score_texts)
    total = sum(len(text.ids[: plan.score_tokens]) for text in texts)
    whole, done = AgreementBuilder(), 0
    by_language: dict[str, AgreementBuilder] = defaultdict(AgreementBuilder)
    with reference.logits() as file:
        for text in texts:
            rows = file.get_slice(names[text.name])
            fed, width = text.ids[: plan.score_tokens], rows.get_shape()[1]
            async for block in page.score(fed, block_rows(width)):
                if block.logits.shape[1] != width:
                    told = f"{block.logits.shape[1]} logits a row, the reference has {width}"
                    raise PageContractBroken("scoreNext", told)
                end = block.start + len(block.logits)
                expected = np.asarray(rows[block.start : end], dtype=np.float32)
                following = np.array(text.ids[block.start + 1 : end + 1], dtype=np.int64)
                for builder in (whole, by_language[text.language]):
                    builder.add(text.name, block.start, expected, block.logits, following)
                done += len(block.logits)
                progress(phase, done, total)
    return whole.build(), {name: builder.build() for name, builder in by_language.items()}


def judge_greedy(case: Greedy, got: GenerateResult) -> GreedyCheck:
    """Compare a continuation, as far as both go, with the reference's."""
    compared = min(len(case.tokens), len(got.tokens))
    difference = first_difference(case.tokens[:compared], got.tokens[:compared])
    margin = None if difference is None else case.margins[difference]
    # Only the runner-up ties: any other token is as wrong as it would be elsewhere.
    near = (
        difference is not None
        and case.margins[difference] < NEAR_TIE
        and got.tokens[difference] == case.runners_up[difference]
    )
    return GreedyCheck(
        name=case.name,
        language=case.language,
        tokens=compared,
        equal_tokens=compared if difference is None else difference,
        outcome="exact" if margin is None else "near-tie" if near else "diverged",
        margin=margin,
        text=got.text,
    )


async def check_greedy(
    page: MeasurePage, answers: Answers, plan: Plan, *, progress: Progress, phase: str
) -> tuple[GreedyCheck, ...]:
    """Continue the reference's prompts, each as far as the reference went."""
    cases = answers.greedy[: plan.greedy_cases]
    checks = []
    for done, case in enumerate(cases):
        progress(phase, done, len(cases))
        got = await page.generate(case.prompt, len(case.tokens[: plan.greedy_tokens]))
        checks.append(judge_greedy(case, got))
    progress(phase, len(cases), len(cases))
    return tuple(checks)

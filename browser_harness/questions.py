"""Ask the browser questions with choices."""

from __future__ import annotations

from itertools import islice

from browser_harness.client import MeasurePage
from browser_harness.continuations import plan_passes, run_pass
from manifests.progress import Progress
from manifests.questions import Answers, Questions


async def ask(
    page: MeasurePage,
    questions: Questions,
    context_length: int,
    *,
    most: int | None,
    progress: Progress,
    phase: str,
) -> Answers:
    """The browser's answers to the first ``most`` questions; ``None`` asks all."""
    found: dict[int, tuple[float, ...]] = {}
    cut = 0
    asked = list(islice(questions.questions, most))
    for index, question in enumerate(asked):
        progress(phase, index, len(asked))
        prompt = question.prompt
        texts = [prompt, *(prompt + letter for letter in question.continuations)]
        context, *whole = await page.tokenize(texts)
        pairs = [(context, ids[len(context) :]) for ids in whole]
        cut += max(map(len, whole)) > context_length + 1
        likelihoods = {
            choice: likelihood.logprob
            for planned in plan_passes(pairs, context_length)
            for choice, likelihood in (await run_pass(page, planned)).items()
        }
        found[index] = tuple(likelihoods[choice] for choice in range(len(pairs)))
    progress(phase, len(asked), len(asked))
    return questions.answered(found, cut)

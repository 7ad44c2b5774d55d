"""How many questions were answered right, and how well that is known."""

from __future__ import annotations

import math
from statistics import NormalDist

from browser_harness.judge.intervals import CONFIDENCE
from manifests.questions import Answers
from manifests.report import Interval


def accuracy(answers: Answers | None) -> float | None:
    """The share of questions answered right; ``None`` without any."""
    if answers is None or not answers.answers:
        return None
    return sum(answer.correct for answer in answers.answers) / len(answers.answers)


def accuracy_interval(answers: Answers) -> Interval:
    """Wilson's score interval (1927) around :func:`accuracy`, of at least one question."""
    count = len(answers.answers)
    share = sum(answer.correct for answer in answers.answers) / count
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = (
        z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    )
    return Interval(low=max(0.0, centre - reach), high=min(1.0, centre + reach))

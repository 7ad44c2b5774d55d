"""What it means that two runs of a language model agree, as numbers.

The definitions are part of the contract: the reference uses them for the export
loss and the harness for the runtime loss, and a budget limits both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from manifests.base import Real, Schema

#: Two candidates closer than this in the reference's logits are a near-tie: which
#: of them wins is decided by the order of float additions, not by the weights.
NEAR_TIE = 1e-3


class Mismatch(Schema):
    """A position where the most likely token differs.

    ``margin`` is the reference's logit of its own choice less its logit of the
    other's choice: at least 0, and below :data:`NEAR_TIE` for a near-tie.
    """

    text: str
    position: int
    expected: int
    got: int
    margin: Real


class Agreement(Schema):
    """Logits of one run compared with a reference's, position by position.

    ``top1`` counts near-ties as agreeing; they are listed in ``near_ties`` all
    the same.  ``kl_*`` is KL(reference || measured) in nats.  Perplexities are
    exp(mean NLL) of the text that was fed.  A position where a logit is not finite
    is a mismatch, infinitely far away.
    """

    positions: int
    top1: float
    max_abs_logit: Real
    mean_abs_logit: Real
    kl_mean: Real
    kl_max: Real
    perplexity_reference: Real
    perplexity: Real
    near_ties: tuple[Mismatch, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural log-probabilities along the last axis, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


class AgreementBuilder:
    """Accumulates an :class:`Agreement` a block of rows at a time.

    Full logits are large (4 bytes x vocabulary x positions); nothing is kept of a
    block but sums and the positions that disagree.
    """

    def __init__(self) -> None:
        self._positions = 0
        self._max = 0.0
        self._abs_sum = 0.0
        self._values = 0
        self._kl_sum = 0.0
        self._kl_max = 0.0
        self._nll_reference: list[float] = []
        self._nll: list[float] = []
        self._near_ties: list[Mismatch] = []
        self._mismatches: list[Mismatch] = []

    def add(
        self,
        text: str,
        start: int,
        reference: NDArray[np.float32],
        measured: NDArray[np.float32],
        next_ids: NDArray[np.int64],
    ) -> None:
        """Add rows ``start``... of ``text``.

        Args:
            text: the text's name, for the list of mismatches.
            start: position of the first row.
            reference: logits, float32 [rows, vocabulary].
            measured: logits of the other run, of the same shape.
            next_ids: int64 [n], n <= rows: the token that follows each row, used
                for the perplexities; the last row of a text has none.
        """
        finite: NDArray[np.bool_] = np.all(np.isfinite(reference) & np.isfinite(measured), axis=-1)
        broken = ~finite
        with np.errstate(invalid="ignore"):
            difference = np.abs(reference.astype(np.float64) - measured)
            expected_log, measured_log = log_softmax(reference), log_softmax(measured)
            kl = (np.exp(expected_log) * (expected_log - measured_log)).sum(axis=-1)
        difference[~np.isfinite(difference)] = np.inf
        measured_log[broken] = -np.inf
        kl[broken] = np.inf

        self._positions += len(reference)
        self._max = max(self._max, float(difference.max(initial=0.0)))
        self._abs_sum += float(difference.sum())
        self._values += difference.size
        self._kl_sum += float(kl.sum())
        self._kl_max = max(self._kl_max, float(kl.max(initial=0.0)))
        rows = np.arange(len(next_ids))
        self._nll_reference.extend(-expected_log[rows, next_ids])
        self._nll.extend(-measured_log[rows, next_ids])

        expected, got = reference.argmax(axis=-1), measured.argmax(axis=-1)
        for row in np.flatnonzero((expected != got) | broken):
            margin = float(reference[row, expected[row]] - reference[row, got[row]])
            mismatch = Mismatch(
                text=text,
                position=start + int(row),
                expected=int(expected[row]),
                got=int(got[row]),
                margin=margin,
            )
            near = margin < NEAR_TIE and not broken[row]
            (self._near_ties if near else self._mismatches).append(mismatch)

    def build(self) -> Agreement:
        """The agreement over everything added.

        Raises:
            ValueError: nothing was added; no agreement can be claimed.
        """
        if not self._positions:
            raise ValueError("no positions were compared")
        return Agreement(
            positions=self._positions,
            top1=1 - len(self._mismatches) / self._positions,
            max_abs_logit=self._max,
            mean_abs_logit=self._abs_sum / self._values,
            kl_mean=self._kl_sum / self._positions,
            kl_max=self._kl_max,
            perplexity_reference=float(np.exp(np.mean(self._nll_reference))),
            perplexity=float(np.exp(np.mean(self._nll))),
            near_ties=tuple(self._near_ties),
            mismatches=tuple(self._mismatches),
        )

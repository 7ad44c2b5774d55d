"""The agreement's numbers against PyTorch's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from manifests.agreement import NEAR_TIE, Agreement, AgreementBuilder, log_softmax

VOCABULARY = 97


def random_logits(seed: int, rows: int) -> NDArray[np.float32]:
    return (6 * np.random.default_rng(seed).standard_normal((rows, VOCABULARY))).astype(np.float32)


def compare(reference: NDArray[np.float32], measured: NDArray[np.float32]) -> Agreement:
    builder = AgreementBuilder()
    builder.add("text", 0, reference, measured, np.zeros(len(reference) - 1, np.int64))
    return builder.build()


def test_log_softmax_is_torchs() -> None:
    logits = random_logits(0, 5)
    expected = torch.log_softmax(torch.from_numpy(logits).double(), -1).numpy()
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-12)


def test_blocks_add_up_to_what_torch_computes_at_once() -> None:
    reference = random_logits(1, 30)
    measured = reference + random_logits(2, 30) * np.float32(0.05)
    ids = np.random.default_rng(3).integers(0, VOCABULARY, 29)
    builder = AgreementBuilder()
    for start, stop in ((0, 7), (7, 19), (19, 30)):
        builder.add("text", start, reference[start:stop], measured[start:stop], ids[start:stop])
    found = builder.build()

    ours = torch.from_numpy(reference).double()
    theirs = torch.from_numpy(measured).double()
    kl = functional.kl_div(
        torch.log_softmax(theirs, -1), torch.log_softmax(ours, -1),
        reduction="none", log_target=True,
    ).sum(-1)  # fmt: skip
    next_ids = torch.from_numpy(ids)
    assert found.positions == 30
    assert found.kl_mean == pytest.approx(kl.mean().item(), rel=1e-9)
    assert found.kl_max == pytest.approx(kl.max().item(), rel=1e-9)
    assert found.perplexity_reference == pytest.approx(
        functional.cross_entropy(ours[:-1], next_ids).exp().item(), rel=1e-9
    )
    assert found.perplexity == pytest.approx(
        functional.cross_entropy(theirs[:-1], next_ids).exp().item(), rel=1e-9
    )
    assert found.max_abs_logit == pytest.approx((ours - theirs).abs().max().item(), rel=1e-6)
    assert found.mean_abs_logit == pytest.approx((ours - theirs).abs().mean().item(), rel=1e-6)
    agreeing = (ours.argmax(-1) == theirs.argmax(-1)).double().mean().item()
    assert found.top1 == pytest.approx(agreeing)
    assert len(found.mismatches) == round(30 * (1 - agreeing)) > 0


def test_equal_logits_agree_entirely() -> None:
    logits = random_logits(4, 6)
    found = compare(logits, logits.copy())
    assert (found.top1, found.max_abs_logit, found.kl_mean, found.kl_max) == (1, 0, 0, 0)
    assert found.perplexity == found.perplexity_reference
    assert found.mismatches == found.near_ties == ()


@pytest.mark.parametrize(("margin", "agrees"), [(0.5 * NEAR_TIE, True), (1.5 * NEAR_TIE, False)])
def test_a_near_tie_agrees_and_is_listed(margin: float, agrees: bool) -> None:
    reference = np.zeros((4, VOCABULARY), np.float32)
    reference[:, 5] = 1
    measured = reference.copy()
    reference[2, 9] = 1 - margin
    measured[2, 9] = 1.25
    found = compare(reference, measured)
    (listed,) = found.near_ties if agrees else found.mismatches
    assert (listed.position, listed.expected, listed.got) == (2, 5, 9)
    assert listed.margin == pytest.approx(margin, rel=1e-3)
    assert found.top1 == (1 if agrees else 0.75)
    assert len(found.near_ties) + len(found.mismatches) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_never_agree(value: float) -> None:
    reference = random_logits(6, 4)
    measured = reference.copy()
    # The most likely token itself: argmax alone would call this agreement.
    best = int(reference[1].argmax())
    measured[1, best] = value
    found = compare(reference, measured)
    assert found.max_abs_logit == np.inf
    assert found.mean_abs_logit == np.inf
    assert found.kl_mean == found.kl_max == found.perplexity == np.inf
    assert np.isfinite(found.perplexity_reference)
    assert found.top1 == 0.75
    assert [mismatch.position for mismatch in found.mismatches] == [1]
    assert found.near_ties == ()
    assert Agreement.parse(found.to_json(), Path("report.json")) == found


def test_nothing_compared_is_no_agreement() -> None:
    with pytest.raises(ValueError, match="no positions"):
        AgreementBuilder().build()

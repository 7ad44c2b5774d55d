"""What the study's page says of the rows that are there, and how it scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.compress.demo import SMOLLM2
from exporter.compress.recipes import plan
from manifests.reference import ScoredText
from targets import TARGETS
from tests.bench.study.rows import ROWS, InBrowser, Proof, Result, Scores, Study
from tests.bench.study.scoring import Tally
from tests.bench.study.table import render
from tests.bench.study.texts import WINDOW, WINDOWS, cut_windows, read_text

SCORES: dict[str, Any] = {
    "positions": {"en": 100, "ar": 300},
    "perplexity": {"en": 12.345, "ar": 4321.0},
    "agreement": {"en": 1.0, "ar": 0.5},
}


def result(row: str, **changes: Any) -> Result:
    found: dict[str, Any] = {
        "model": SMOLLM2.name,
        "row": row,
        "key": "k",
        "weights_bytes": 123_400_000,
        "ratio": 2.0,
        "pytorch": Scores(**SCORES),
        "browser": {
            target: InBrowser(download_bytes=99_600_000, browser="Chromium 1", **SCORES)
            for target in ROWS[row].targets
        },
        "proof": {
            target.removeprefix("wasm-"): Proof(
                exact=272, requantised=1, codes_compared=5, largest_rms=0.0054
            )
            for target in ROWS[row].targets
        },
        "seconds": 1.0,
    }
    return Result(**{**found, **changes})


def page(*results: Result) -> str:
    return render(Study(windows={}, results=tuple(results)))


def lines_of(text: str, row: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {ROWS[row].title} |")]


def test_a_row_that_is_there_is_told_for_each_of_its_targets() -> None:
    [line] = lines_of(page(result("w8a8")), "w8a8")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == [
        *("123", "2.00", "", "12.35", "4,321", "0.625"),
        *("wasm-q8", "100", "12.35", "4,321", "0.625"),
        "272 of 273; 0.54%",
    ]
    assert len(lines_of(page(result("bf16")), "bf16")) == 2


def test_rows_that_are_missing_or_failed_say_so() -> None:
    text = page(result("w8a8"), result("fp8", failure="boom: a | b\nc", pytorch=None))
    [failed] = lines_of(text, "fp8")
    assert "failed: boom: a \\| b c" in failed
    for row in ROWS.keys() - {"w8a8", "fp8"}:
        [line] = lines_of(text, row)
        assert "not there" in line
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if "|" in line}
    assert len(widths) == 1
    assert "No row of this model is there." in text


def test_rows_are_chains_that_the_command_takes() -> None:
    for row in ROWS.values():
        assert set(row.targets) <= set(TARGETS)
        if row.methods:
            plan(row.methods, **row.options)
        if row.before is not None:
            before = ROWS[row.before]
            plan((*before.methods, *row.methods), **{**before.options, **row.options})


def test_perplexity_is_torch_s_and_agreement_is_counted() -> None:
    import torch

    rng = np.random.default_rng(3)
    texts = [
        ScoredText(name=f"{language}-0", language=language, ids=tuple(rng.integers(0, 50, 20)))
        for language in ("en", "ar")
    ]
    tally, expected = Tally(), {}
    for text in texts:
        logits = rng.normal(size=(20, 50)).astype(np.float32)
        for start in range(0, 20, 8):
            tally.add(text, start, logits[start : start + 8])
        best = logits.argmax(axis=1).tolist()
        expected[text.name] = [*best[:15], *(token + 1 for token in best[15:])]
        loss = torch.nn.functional.cross_entropy(
            torch.from_numpy(logits[:-1]), torch.tensor(text.ids[1:])
        )
        scores = tally.scores(expected)
        assert scores.positions[text.language] == 19
        assert scores.perplexity[text.language] == pytest.approx(float(loss.exp()))
        assert scores.agreement[text.language] == 0.75


def test_windows_are_full_and_begin_as_texts_do() -> None:
    def tokenizer(text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [10 + number for number, _ in enumerate(text.split())]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}

    windows = cut_windows(tokenizer, {"en": "a " * 2000, "ar": "b " * 600})
    assert [text.name for text in windows] == [*(f"en-{n}" for n in range(WINDOWS)), "ar-0", "ar-1"]
    assert {len(text.ids) for text in windows} == {WINDOW}
    assert windows[1].ids[:3] == (1, 10 + WINDOW - 1, 10 + WINDOW)


def test_text_is_read_out_of_a_page() -> None:
    html = "<html><head><style>p{}</style></head><body><h1>A <b>b</b></h1><p>ج\n د</p></body>"
    assert read_text(html) == "A b\nج د"

"""The history file: appended whole or not at all, read line by line."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from browser_harness.judge import judge
from browser_harness.judge.history import HistoryTorn, append, entry, read
from manifests.budget import Budget
from manifests.errors import BadDocument, NotFound
from manifests.report import Report
from tests.unit.reports import sample_report


def judged() -> Report:
    report = sample_report()
    budget = Budget.model_validate({"limits": {"wasm-q4": {"target_bytes": {"max": 1e12}}}})
    return report.model_copy(update={"verdict": judge(report, budget)})


def test_a_line_holds_the_figures_of_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history.jsonl"
    append(path, entry(judged()))
    append(path, entry(judged()))
    first, second = read(path)
    assert first == second
    assert set(first.figures) == {"wasm-q4", "webgpu-q4"}  # the third target failed
    assert first.outcome == "fail"
    assert first.figures["wasm-q4"]["target_bytes"].value == 131_214_336
    assert first.figures["wasm-q4"]["load_cold_ms"].interval is not None
    assert first.environment["wasm-q4"]["threads"] == "2"
    for line in path.read_text("utf-8").splitlines():
        assert json.loads(line)["format"] == "tabwright-history"


def test_gates_that_end_together_append_whole_lines(tmp_path: Path) -> None:
    path, line = tmp_path / "history.jsonl", entry(judged())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: append(path, line), range(40)))
    assert read(path) == [line] * 40


def test_a_torn_history_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append(path, entry(judged()))
    torn = path.read_bytes()[:-20]
    path.write_bytes(torn)
    with pytest.raises(HistoryTorn) as caught:
        append(path, entry(judged()))
    assert caught.value.exit_status == 3
    assert path.read_bytes() == torn


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n", '{"format": "tabwright-history"\n'])
def test_what_is_no_history_is_told_by_its_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(BadDocument, match=r"history\.jsonl: not a valid history: (line 1|it)"):
        read(path)
    with pytest.raises(NotFound):
        read(tmp_path / "absent.jsonl")

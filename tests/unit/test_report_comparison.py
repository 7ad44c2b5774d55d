"""Several reports in one table and on one page; histories; GitHub's annotations."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import tabwright
from browser_harness.judge import judge
from browser_harness.judge.history import append, entry
from browser_harness.report import annotate, render_junit, render_markdown
from browser_harness.report.comparison import records
from browser_harness.report.pages import render_comparison, render_trend
from browser_harness.report.series import Mark, series
from browser_harness.report.trend import lines, spark
from manifests.budget import Budget
from manifests.history import Entry
from manifests.report import Report
from tests.unit.reports import healthy_report, sample_report
from tests.unit.test_judge_baseline import decodes, machine, regression
from tests.unit.test_report_documents import HOSTILE, Page


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Two reports of one machine, the second slower, and one of another machine."""
    reports = (decodes(30), decodes(36, seed=1), machine(cpu="Apple M4")(decodes(12)))
    paths = []
    for name, report in zip(("old", "new", "mac"), reports, strict=True):
        (tmp_path / name).mkdir()
        report.save(tmp_path / name / "report.json")
        paths.append(str(tmp_path / name / "report.json"))
    return paths


def test_ratios_stand_where_the_environment_is_one(
    three: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    assert tabwright.call(["compare", *three, "--csv", str(out), "--format", "json"]) == 0
    rows = [
        row
        for row in csv.DictReader(io.StringIO(out.read_text("utf-8")))
        if row["metric"] == "decode_tokens_per_second" and row["engine"] == "browser"
    ]
    assert [row["report"] for row in rows] == [f"{n}/report.json" for n in ("old", "new", "mac")]
    assert [row["change"] for row in rows] == ["", "regressed", ""]
    assert float(rows[1]["ratio"]) == pytest.approx(30 / 36, rel=0.02)
    assert float(rows[0]["low"]) < float(rows[0]["value"]) < float(rows[0]["high"])
    document = json.loads(capsys.readouterr().out)
    assert len(document["figures"]) % 3 == 0
    differing = {row["label"] for row in document["environment"] if row["differs"]}
    assert differing == {"machine"}


def test_pytorch_stands_beside_the_browser_in_csv(three: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert tabwright.call(["compare", three[0], "--csv", str(out)]) == 0
    rows = csv.DictReader(io.StringIO(out.read_text("utf-8")))
    found = {row["metric"]: row for row in rows if row["engine"] == "PyTorch"}
    reference = decodes(30).reference
    assert reference is not None
    middle = statistics.median(reference.speed.decode_ms)
    assert float(found["decode_tokens_per_second"]["value"]) == pytest.approx(1000 / middle)
    assert float(found["load_warm_ms"]["value"]) == reference.speed.load_ms
    assert {row["low"] for row in found.values()} == {""}


def test_what_differs_is_told_beside_the_numbers(
    three: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, text = tmp_path / "page.html", tmp_path / "table.md"
    arguments = ["compare", *three, "--html", str(page), "--markdown", str(text)]
    assert tabwright.call(arguments) == 0
    printed = capsys.readouterr().out
    assert "machine: differs" in printed
    assert "Apple M4" in printed
    markdown = text.read_text("utf-8")
    assert "**machine: differs**" in markdown
    tables = [line.count("|") for line in markdown.splitlines() if line.startswith("|")]
    assert set(tables) == {6}
    shown = " ".join(Page(page.read_text("utf-8")).texts)
    assert "Where machine differ" in shown
    assert "Apple M4" in shown


def test_a_page_of_reports_is_closed_and_escaped() -> None:
    hostile = sample_report(HOSTILE)
    renamed = {HOSTILE: hostile.targets["wasm-q4"]}
    named = [(HOSTILE, hostile.model_copy(update={"targets": renamed})), ("b", sample_report())]
    html = render_comparison(named)
    page = Page(html)
    assert {tag for tag, _ in page.elements} & {"script", "img", "link", "iframe"} == set()
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert "<script>alert(1)</script>" in "".join(page.texts)
    assert "url(" not in html


def test_a_report_is_compared_with_nothing_it_does_not_hold() -> None:
    found = records([("a", healthy_report()), ("b", decodes(30))])
    gpu = [each for each in found if (each.target, each.report) == ("webgpu-q4", "b")]
    assert gpu
    assert {(each.value, each.ratio) for each in gpu} == {(None, None)}


def history(*reports: Report) -> list[Entry]:
    verdicts = (each.model_copy(update={"verdict": judge(each, regression())}) for each in reports)
    return [entry(each) for each in verdicts]


def test_a_trend_compares_within_one_environment() -> None:
    moved = machine(cpu="Apple M4")
    entries = history(decodes(30), decodes(33), moved(decodes(12)), moved(decodes(10)))
    decode = next(each for each in lines(entries) if each.metric == "decode_tokens_per_second")
    assert decode.breaks == {2}
    assert decode.since == pytest.approx(12 / 10, rel=0.02)
    drawing = ET.fromstring(
        str(series(decode.marks, "tokens/s", "Decode", breaks=decode.breaks, joined=True))
    )
    assert len(list(drawing.iter("circle"))) == 4
    # One stretch on either side of the change.
    assert len(list(drawing.iter("polyline"))) == 2
    Page(render_trend(entries))


def test_a_plot_without_values_is_still_a_plot() -> None:
    for marks in ([], [Mark("a", None)], [Mark("a", 0.0)]):
        assert ET.fromstring(str(series(marks, "ms", "t", joined=True))).tag == "svg"


def test_bars_rise_with_the_values() -> None:
    assert spark([0, 3.5, 7]) == "▁▅█"
    assert spark([0, 0]) == "▁▁"


def test_trend_reads_what_gate_appends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    report, page = tmp_path / "report.json", tmp_path / "trend.html"
    lines_at = tmp_path / "history.jsonl"
    budget = tmp_path / "budget.toml"
    budget.write_text("[limits.wasm-q4]\ntarget_bytes = { max = 140e6 }\n", "utf-8")
    for ms in (30, 33):
        decodes(ms).save(report)
        arguments = ["gate", str(report), "--budget", str(budget), "--history", str(lines_at)]
        assert tabwright.call(arguments) == 0
    assert tabwright.call(["trend", str(lines_at), "--html", str(page)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if " Decode " in line)
    assert "× 0.909" in row
    assert "Decode" in "".join(Page(page.read_text("utf-8")).texts)
    assert tabwright.call(["trend", str(lines_at), "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["created"]) == 2


def slower() -> Report:
    report = decodes(36, seed=1)
    return report.model_copy(update={"verdict": judge(report, regression(), decodes(30))})


def test_every_view_shows_the_baseline() -> None:
    markdown = render_markdown(slower())
    assert "Compared with SmolLM2-135M-Instruct, seal 5e5e5e5e" in markdown
    assert re.search(r"regressed: 0\.8\d\d × 33", markdown)
    (failure,) = ET.fromstring(render_junit(slower())).iter("failure")
    assert "regressed: 0.8" in failure.attrib["message"]
    case = next(ET.fromstring(render_junit(slower())).iter("testcase"))
    assert case.attrib["name"] == "decode_tokens_per_second at most 5 % worse"


def test_annotations_are_one_escaped_line_each() -> None:
    (line,) = annotate(slower())
    assert line.startswith("::error title=wasm-q4%3A Decode::")
    assert "at most 5 %25 worse" in line
    report = sample_report()
    renamed = {"a,b:c\n": report.targets["webgpu-q8"]}
    report = report.model_copy(update={"targets": renamed})
    budget = Budget.model_validate({"defaults": {"target_bytes": {"max": 1, "level": "warn"}}})
    judged = report.model_copy(update={"verdict": judge(report, budget)})
    for each in annotate(judged):
        assert each.count("\n") == 0
        assert re.match(r"::error title=a%2Cb%3Ac%0A", each)
    assert annotate(report) == []


def test_a_history_of_another_target_leaves_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for each in history(decodes(30)):
        append(path, each)
    other = healthy_report().targets["webgpu-q4"]
    alone = healthy_report().model_copy(update={"targets": {"webgpu-q4": other}})
    entries = [*history(decodes(30)), *history(alone), *history(decodes(30))]
    decode = next(each for each in lines(entries) if each.metric == "decode_tokens_per_second")
    assert [mark.value is None for mark in decode.marks] == [False, True, False]
    assert decode.breaks == frozenset()

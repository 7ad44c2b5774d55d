"""The reports that people and CI servers read, with names meant to break them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

import browser_harness.judge
from browser_harness.judge import judge
from browser_harness.report import (
    append_summary,
    render,
    render_html,
    render_junit,
    render_markdown,
    write_html,
    write_junit,
)
from manifests.budget import Budget
from manifests.report import Failure, Report, TargetReport
from tests.unit.reports import ARABIC, healthy_report, sample_report

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> [red]x[/red] | `a` \x1b[31m\x00"
)
EXAMPLE = Path(browser_harness.judge.__file__).with_name("example.toml")


def with_verdict(report: Report) -> Report:
    example = Budget.load(EXAMPLE)
    crashed = {"webgpu-q8": {"target_bytes": {"max": 1}}}
    budget = Budget.model_validate({"limits": {**example.model_dump()["limits"], **crashed}})
    return report.model_copy(update={"verdict": judge(report, budget)})


@pytest.fixture
def report() -> Report:
    return with_verdict(sample_report())


@pytest.fixture
def hostile() -> Report:
    """A report in which every text that comes from outside tries to break out."""
    report = sample_report(HOSTILE)
    wasm = report.targets["wasm-q4"]
    assert wasm.parity is not None
    greedy = wasm.parity.greedy[0].model_copy(update={"text": HOSTILE, "name": HOSTILE})
    wrong = wasm.model_copy(
        update={
            "console": (HOSTILE,),
            "notes": (HOSTILE,),
            "failure": Failure(code="x", sentence=HOSTILE, next_step=HOSTILE),
            "parity": wasm.parity.model_copy(update={"greedy": (greedy,)}),
        }
    )
    sizes = report.bundle.model_copy(update={"bytes_by_kind": {HOSTILE: 3}})
    report = report.model_copy(update={"bundle": sizes, "targets": {HOSTILE: wrong}})
    budget = Budget.model_validate({"limits": {HOSTILE: {"target_bytes": {"max": 1}}}})
    return report.model_copy(update={"verdict": judge(report, budget)})


class Page(HTMLParser):
    """Every element and text of a page; fails on tags that do not nest."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def attributes(page: Page, name: str) -> list[str | None]:
    return [attrs[name] for _, attrs in page.elements if name in attrs]


def test_the_page_says_what_matters(report: Report) -> None:
    text = " ".join(" ".join(Page(render_html(report)).texts).split())
    assert "SmolLM2-135M-Instruct" in text
    assert "Software adapter: correctness only" in text
    assert "the page crashed while it created the session" in text
    assert "a software adapter says nothing about speed" in text
    assert "diverges after 6 of 24 tokens" in text
    assert "--use-webgpu-adapter=swiftshader" in text
    assert "Only 48 positions were scored" in text
    assert "a kernel fell back to the CPU" in text
    assert "torch 2.13.0" in text


def test_the_page_has_every_plot(report: Report) -> None:
    labels = attributes(Page(render_html(report)), "aria-label")
    for plot in (
        "Load, phase by phase",
        "Time to first token by prompt length",
        "Milliseconds per token by position",
        "Memory over time",
    ):
        assert labels.count(plot) == 2, plot  # the crashed target was never loaded
    assert labels.count("Size by kind") == 1


def test_arabic_reads_from_the_right(report: Report) -> None:
    page = Page(render_html(report))
    quotes = [attrs for tag, attrs in page.elements if tag == "blockquote"]
    assert {attrs["dir"] for attrs in quotes} == {"auto"}
    assert "ar" in {attrs.get("lang") for attrs in quotes}
    assert ARABIC in page.texts


def test_the_page_asks_the_network_for_nothing(report: Report) -> None:
    page = Page(render_html(report))
    assert attributes(page, "src") == []
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object"} == set()
    assert all(href is not None and href.startswith("#") for href in attributes(page, "href"))
    assert "url(" not in render_html(report)
    ids = attributes(page, "id")
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} >= set(attributes(page, "href"))


def test_hostile_names_stay_text(hostile: Report) -> None:
    page = Page(render_html(hostile))
    tags = {tag for tag, _ in page.elements}
    assert tags & {"script", "img"} == set()
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert "<script>alert(1)</script>" in "".join(page.texts)


def test_a_report_without_budget_or_reference_is_a_page(tmp_path: Path) -> None:
    bare = sample_report().model_copy(
        update={
            "browser": None,
            "reference": None,
            "targets": {
                "wasm-q4": TargetReport(execution_provider="wasm", threads=1, target_bytes=5)
            },
        }
    )
    write_html(bare, tmp_path / "report.html")
    text = " ".join(Page((tmp_path / "report.html").read_text("utf-8")).texts)
    assert "no budget was given" in text
    assert "PyTorch ran" not in text


def test_junit_holds_a_case_per_check(report: Report, tmp_path: Path) -> None:
    write_junit(report, tmp_path / "junit.xml")
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert report.verdict is not None
    checks = report.verdict.checks
    cases = root.findall("testsuite/testcase")
    # And one for the target that failed.
    assert len(cases) == len(checks) + 1 == int(root.attrib["tests"])
    (error,) = root.findall("testsuite/testcase/error")
    assert (error.attrib["type"], root.attrib["errors"]) == ("page-crashed", "1")
    for kind, outcome in (("failures", "fail"), ("skipped", "inconclusive")):
        expected = sum(check.outcome == outcome for check in checks)
        assert int(root.attrib[kind]) == expected > 0
        assert sum(int(suite.attrib[kind]) for suite in root) == expected
    assert len(root.findall(".//failure")) == int(root.attrib["failures"])
    (first, *_) = root.findall(".//skipped")
    assert "software adapter" in first.attrib["message"]
    names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    assert ("tabwright.wasm-q4", "decode_tokens_per_second ≥ 5 tok/s") in names
    assert len(set(names)) == len(names)


def test_a_warning_passes_in_junit_and_says_so() -> None:
    limits = {"wasm-q4": {"target_bytes": {"max": 1, "level": "warn"}}}
    report = healthy_report()
    verdict = judge(report, Budget.model_validate({"limits": limits}))
    root = ET.fromstring(render_junit(report.model_copy(update={"verdict": verdict})))
    assert root.attrib["failures"] == root.attrib["skipped"] == "0"
    assert "over the limit" in (root.findtext(".//system-out") or "")


def test_junit_survives_hostile_names(hostile: Report) -> None:
    root = ET.fromstring(render_junit(hostile))
    case, _ = root.findall("testsuite/testcase")
    assert "<script>" in case.attrib["classname"]
    assert "\x00" not in case.attrib["classname"]


def test_junit_without_a_verdict_has_no_cases() -> None:
    assert ET.fromstring(render_junit(sample_report())).attrib["tests"] == "0"


def test_markdown_keeps_its_tables_whole(hostile: Report, report: Report) -> None:
    text = render_markdown(hostile)
    assert "<script>" not in text
    assert "<img" not in text
    for document in (text, render_markdown(report)):
        rows = [line for line in document.splitlines() if line.startswith("|")]
        widths = {line.replace("\\|", "").count("|") for line in rows}
        columns = len(hostile.targets if document is text else report.targets) + 2
        assert widths == {7, columns + 1}


def test_the_summary_is_appended_where_ci_wants_it(report: Report, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", "utf-8")
    assert append_summary(report, {"GITHUB_STEP_SUMMARY": str(summary)}) == summary
    assert summary.read_text("utf-8") == "before\n" + render_markdown(report)
    assert "**FAIL: " in summary.read_text("utf-8")


@pytest.mark.parametrize("environment", [{}, {"GITHUB_STEP_SUMMARY": ""}])
def test_no_summary_is_written_elsewhere(report: Report, environment: dict[str, str]) -> None:
    assert append_summary(report, environment) is None


def printed(report: Report) -> str:
    console = Console(width=240, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(render(report))
    return capture.get()


def test_the_terminal_shows_figures_checks_and_the_verdict(report: Report) -> None:
    text = printed(report)
    assert text.splitlines()[-1].startswith("FAIL: ")
    assert "webgpu-q8 failed: page-crashed" in text
    assert "software WebGPU adapter" in text
    decode = next(line for line in text.splitlines() if line.startswith("Decode, median"))
    assert "26.7 tok/s" in decode
    assert "17.2 tok/s" in decode  # PyTorch beside the browser


def test_the_terminal_reads_no_markup_from_a_report(hostile: Report) -> None:
    text = printed(hostile)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_a_failed_target_is_told_though_nothing_limits_it() -> None:
    limits = {"wasm-q4": {"target_bytes": {"max": 1e12}}}
    report = sample_report()
    verdict = judge(report, Budget.model_validate({"limits": limits}))
    judged = report.model_copy(update={"verdict": verdict})
    assert printed(judged).splitlines()[-1] == "FAIL: 1 target failed, 1 passed"
    root = ET.fromstring(render_junit(judged))
    assert (root.attrib["tests"], root.attrib["failures"], root.attrib["errors"]) == ("2", "0", "1")


def test_the_browser_is_named_once(report: Report) -> None:
    assert "Chromium 156.0.7011.2, " in printed(report).splitlines()[0]


def test_a_report_that_was_not_judged_says_so() -> None:
    assert printed(sample_report()).splitlines()[-1] == "NOT JUDGED: no budget was given"


@pytest.mark.parametrize(("target", "led"), [("webgpu-q4", True), ("wasm-q4", False)])
def test_a_runtime_loss_beyond_its_limit_leads_to_a_diagnosis(target: str, led: bool) -> None:
    whole = healthy_report()
    budget = Budget.model_validate({"limits": {target: {"runtime_top1": {"min": 1}}}})
    shown = whole.model_copy(update={"verdict": judge(whole, budget)})
    for text in (render_markdown(shown), render_html(shown)):
        assert ("tabwright diagnose" in text) == led

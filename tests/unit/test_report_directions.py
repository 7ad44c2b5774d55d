"""Names and texts of either direction, in reports that are read in both."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from browser_harness.report.html import render_html
from browser_harness.report.markdown import render_markdown
from browser_harness.report.terminal import render
from browser_harness.report.text import isolated
from tests.unit.reports import sample_report

ARABIC = "نموذج صغير (v2)"
ISOLATED = "\u2068نموذج صغير (v2)\u2069"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model (v2)", "model (v2)"),
        (ARABIC, ISOLATED),
        ("٤٩٫٩٥", "\u2068٤٩٫٩٥\u2069"),
        ("שלום", "\u2068שלום\u2069"),
        # An override left open would turn round the whole line.
        ("gpj.\u202etxt", "gpj.txt"),
        ("\u2067نص\u2069\u2069 x", "\u2068نص x\u2069"),
    ],
)
def test_right_to_left_text_is_isolated_and_nothing_else_turns(text: str, shown: str) -> None:
    assert isolated(text) == shown


def test_names_are_isolated_in_every_kind_of_report() -> None:
    report = sample_report(ARABIC)
    # Markdown's own escapes stand between the parentheses and the name.
    assert "## \u2068نموذج صغير \\(v2\\)\u2069" in render_markdown(report)
    out = io.StringIO()
    Console(file=out, width=200).print(render(report))
    assert f"{ISOLATED}  Chromium" in out.getvalue()
    page = render_html(report)
    assert f'<h1 dir="auto">{ARABIC}</h1>' in page
    assert "<bdi>عاصمة</bdi>" in page
    assert 'dir="auto" lang="ar"' in page

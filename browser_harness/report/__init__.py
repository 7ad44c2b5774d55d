"""A report for people and for CI: HTML, terminal, JUnit XML, Markdown."""

from browser_harness.report.annotations import annotate
from browser_harness.report.html import render_html, write_html
from browser_harness.report.junit import render_junit, write_junit
from browser_harness.report.markdown import append_summary, render_markdown
from browser_harness.report.terminal import render

__all__ = [
    "annotate",
    "append_summary",
    "render",
    "render_html",
    "render_junit",
    "render_markdown",
    "write_html",
    "write_junit",
]

"""JUnit XML for CI servers: a suite per target, a case per check.

A warning passes and says why in its output; an inconclusive check is skipped
with its reason; a target that failed is an error of its suite, limited or not.
The dialect is the one that Jenkins and GitLab read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

from browser_harness.report import glance
from browser_harness.report.text import printable
from manifests.report import Check, Failure, Report


def _counts(checks: Iterable[Check], errors: int) -> dict[str, str]:
    outcomes = [check.outcome for check in checks]
    return {
        "tests": str(len(outcomes) + errors),
        "failures": str(outcomes.count("fail")),
        "errors": str(errors),
        "skipped": str(outcomes.count("inconclusive")),
    }


def render_junit(report: Report) -> str:
    """Render the verdict of ``report``; without one there are no cases."""
    grouped = glance.by_target(report)
    failed = dict(glance.failures(report)) if report.verdict else {}
    grouped |= {name: [] for name in failed if name not in grouped}
    every = [check for checks in grouped.values() for check in checks]
    root = ET.Element("testsuites", {"name": "tabwright", **_counts(every, len(failed))})
    for target, checks in grouped.items():
        suite = ET.SubElement(
            root,
            "testsuite",
            {
                "name": printable(target),
                "timestamp": printable(report.created),
                **_counts(checks, int(target in failed)),
            },
        )
        if target in failed:
            _add_failure(suite, target, failed[target])
        for check in checks:
            _add_case(suite, check)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _add_failure(suite: ET.Element, target: str, failure: Failure) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        {"classname": printable(f"tabwright.{target}"), "name": "is measured to the end"},
    )
    told = printable(f"{failure.sentence} {failure.next_step}".strip())
    ET.SubElement(case, "error", {"type": printable(failure.code), "message": told}).text = told


def _add_case(suite: ET.Element, check: Check) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        {
            "classname": printable(f"tabwright.{check.target}"),
            "name": f"{check.metric} {glance.limit(check)}",
        },
    )
    told = printable(f"measured {glance.measured(check)}: {check.reason}")
    if check.outcome == "fail":
        ET.SubElement(case, "failure", {"type": check.metric, "message": told}).text = told
    elif check.outcome == "inconclusive":
        ET.SubElement(case, "skipped", {"message": told})
    elif check.outcome == "warn":
        ET.SubElement(case, "system-out").text = f"warning: {told}"
    elif check.comparison is not None:
        ET.SubElement(case, "system-out").text = told


def write_junit(report: Report, path: Path) -> None:
    """Write the verdict of ``report`` to ``path`` as JUnit XML."""
    declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
    path.write_text(declaration + render_junit(report), "utf-8")

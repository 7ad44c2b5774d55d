"""Every fault of the catalogue, in one run: each ends typed, in time, and costs its target only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.catalogue import CPU, FAULTS, NONE
from tests.faults.runner import Case, Ending, run

pytestmark = pytest.mark.browser

#: Beyond the deadline of what was asked of the page.
GRACE_SECONDS = 5.0

CASES = {
    name: Case(name, target, fault)
    for fault_name, fault in FAULTS.items()
    for target in fault.targets
    for name in [f"{fault_name}.{target}"]
}
BEFORE, AFTER = (Case(name, CPU, NONE) for name in ("before", "after"))


@pytest.fixture(scope="module")
def endings(
    request: pytest.FixtureRequest,
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
    temporary: Path,
) -> dict[str, Ending]:
    """Of the faults whose tests were asked for, with a target that is in order at either end."""
    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_fault
    }
    cases = [BEFORE, *(case for name, case in CASES.items() if name in asked), AFTER]
    return run(bundle, cases, tmp_path_factory.mktemp("faults"), temporary)


@pytest.mark.parametrize("name", CASES)
def test_fault(name: str, endings: dict[str, Ending]) -> None:
    fault, ending = CASES[name].fault, endings[name]
    failure = ending.report.failure
    assert ending.left == set()
    assert ending.seconds is not None
    assert ending.seconds < fault.seconds + GRACE_SECONDS
    if fault.code is None:
        assert failure is None, failure
        _assert_measured(ending)
        assert re.search(fault.tells, "\n".join(ending.report.notes))
        return
    assert failure is not None
    assert failure.code == fault.code, failure.sentence
    assert re.search(fault.tells, failure.sentence)


@pytest.mark.parametrize("case", [BEFORE, AFTER], ids=lambda case: case.name)
def test_the_others_are_measured(case: Case, endings: dict[str, Ending]) -> None:
    ending = endings[case.name]
    assert (ending.report.failure, ending.left) == (None, frozenset())
    _assert_measured(ending)


def _assert_measured(ending: Ending) -> None:
    [cold] = ending.report.cold
    assert cold.timings.bytes_fetched > 0
    assert cold.first_token_ms > 0
    assert ending.report.memory is not None

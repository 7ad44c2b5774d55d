"""The CI files: their scripts are run as they are, with a stand-in for measuring only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.errors import EXIT_ENVIRONMENT, EXIT_INTERNAL
from manifests.report import Failure, Report
from tests.unit.test_judge_baseline import decodes, with_target

ROOT = Path(__file__).parents[2]
CI = ROOT / "browser_harness/ci"
BUDGET = "[limits.wasm-q4]\ndecode_tokens_per_second = { min = 1, regression = 0.05 }\n"

#: Takes the report from a file instead of a browser; everything else is the real command.
TABWRIGHT = f"""#!{sys.executable}
import shutil, sys
sys.path.insert(0, {str(ROOT)!r})
import tabwright
if sys.argv[1] == "measure":
    with open("asked.txt", "w") as asked:
        asked.write(" ".join(sys.argv[1:]))
    shutil.copy("measured.json", sys.argv[sys.argv.index("-o") + 1])
    sys.exit(int(open("status.txt").read()))
else:
    sys.exit(tabwright.call(sys.argv[1:]))
"""


def document(name: str) -> Any:
    return yaml.safe_load((CI / name).read_text("utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "tabwright"
    program.write_text(TABWRIGHT)
    program.chmod(0o755)
    (tmp_path / "budget.toml").write_text(BUDGET)
    (tmp_path / "status.txt").write_text("0")
    return tmp_path


BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="no bash on this machine")


def bash(folder: Path, script: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    assert BASH is not None
    # As runners start it: a step ends at its first failing command.
    return subprocess.run(
        [BASH, "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


#: Every target failed, as 'measure' then tells by its exit status.
BROKEN = with_target(decodes(30), failure=Failure(code="page-crashed", sentence="it crashed"))


def action(folder: Path, report: Report, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the action's step with ``inputs`` over its defaults."""
    report.save(folder / "measured.json")
    parsed = document("action.yml")
    given = {name: each.get("default") for name, each in parsed["inputs"].items()} | inputs
    (step,) = parsed["runs"]["steps"]
    variables = {
        name: given[value.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, value in step["env"].items()
    }
    github = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_ACTIONS": "true"}
    return bash(folder, step["run"], variables | github)


def test_the_action_judges_and_annotates(folder: Path) -> None:
    first = action(folder, decodes(30), bundle="b", budget="budget.toml", baseline="absent.json")
    assert first.returncode == 0, first.stderr
    assert (folder / "output").read_text() == "report=tabwright-report/report.json\n"
    (folder / "tabwright-report/report.json").rename(folder / "old.json")
    slower = action(
        folder,
        decodes(36, seed=1),
        bundle="b",
        budget="budget.toml",
        baseline="old.json",
        history="history.jsonl",
    )
    assert slower.returncode == 1
    assert "::error title=wasm-q4%3A Decode::" in slower.stderr
    assert (folder / "history.jsonl").read_text().count("\n") == 1
    written = {path.name for path in (folder / "tabwright-report").iterdir()}
    assert written == {"report.json", "report.html", "junit.xml"}


def test_the_action_judges_a_report_in_which_every_target_failed(folder: Path) -> None:
    (folder / "status.txt").write_text(str(EXIT_ENVIRONMENT))
    broken = action(folder, BROKEN, bundle="b", history="history.jsonl")
    assert broken.returncode == 1
    assert "page-crashed" in (folder / "tabwright-report/junit.xml").read_text()
    assert (folder / "history.jsonl").read_text().count("\n") == 1


def test_a_report_is_no_excuse_for_a_measurement_that_broke_off(folder: Path) -> None:
    # An internal error, after the report was written.
    (folder / "status.txt").write_text(str(EXIT_INTERNAL))
    assert action(folder, decodes(30), bundle="b").returncode == EXIT_INTERNAL
    assert not (folder / "tabwright-report/junit.xml").exists()
    job = document("gitlab.yml")[".tabwright"]
    assert bash(folder, "\n".join(job["script"]), job["variables"]).returncode == EXIT_INTERNAL


def test_the_action_measures_beside_a_bundle_that_is_there(folder: Path) -> None:
    action(folder, decodes(30), bundle="b", beside="released")
    assert "--beside" not in (folder / "asked.txt").read_text()
    (folder / "released").mkdir()
    action(folder, decodes(30), bundle="b", beside="released")
    assert (folder / "asked.txt").read_text().endswith("--beside released")


#: What both files hand on to 'measure', and what becomes of it.
CHOICES = {"targets": "wasm-q4 webgpu-q4", "threads": "2", "tasks": "questions.jsonl"}
OPTIONS = "--target wasm-q4 --target webgpu-q4 --threads 2 --tasks questions.jsonl"


def test_targets_threads_and_tasks_are_handed_on(folder: Path) -> None:
    def asked() -> str:
        return (folder / "asked.txt").read_text().partition("report.json")[2].strip()

    action(folder, decodes(30), bundle="b")
    assert asked() == ""
    action(folder, decodes(30), bundle="b", **CHOICES)
    assert asked() == OPTIONS
    job = document("gitlab.yml")[".tabwright"]
    script = "\n".join(job["script"])
    bash(folder, script, job["variables"])
    assert asked() == ""
    given = {name.upper(): value for name, value in CHOICES.items()}
    bash(folder, script, {**job["variables"], **given})
    assert asked() == OPTIONS


def test_the_gitlab_cache_is_written_by_the_default_branch_only() -> None:
    job = document("gitlab.yml")[".tabwright"]
    assert job["cache"]["policy"] == "$CACHE_POLICY"
    assert job["variables"]["CACHE_POLICY"] == "pull"
    first, *others = job["rules"]
    assert first == {
        "if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH",
        "variables": {"CACHE_POLICY": "pull-push"},
    }
    assert all("variables" not in rule for rule in others)


def test_the_wheel_holds_the_ci_files() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["browser_harness"]
    packed = {path for pattern in patterns for path in CI.parent.glob(pattern)}
    assert set(CI.iterdir()) <= packed


def test_the_gitlab_job_keeps_its_baseline(folder: Path) -> None:
    job = document("gitlab.yml")[".tabwright"]
    variables = {**job["variables"], "BUDGET": "budget.toml", "REFERENCE": "reference.json"}
    variables |= {"CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"}

    def run(report: Report) -> subprocess.CompletedProcess[str]:
        report.save(folder / "measured.json")
        return bash(folder, "\n".join(job["script"]), variables)

    first = run(decodes(30))
    assert first.returncode == 0, first.stderr
    assert (folder / "asked.txt").read_text().endswith("--reference reference.json")
    kept = (folder / "tabwright-baseline/report.json").read_bytes()
    slower = run(decodes(36, seed=1))
    assert slower.returncode == 1
    assert "regressed" in slower.stdout
    # A report that failed is nobody's baseline.
    assert (folder / "tabwright-baseline/report.json").read_bytes() == kept
    assert (folder / "tabwright-baseline/history.jsonl").read_text().count("\n") == 2
    (folder / "status.txt").write_text(str(EXIT_ENVIRONMENT))
    assert run(BROKEN).returncode == 1
    assert job["artifacts"]["reports"]["junit"] == "$OUTPUT/junit.xml"


def test_the_gitlab_job_judges_answers_every_time(folder: Path) -> None:
    job = document("gitlab.yml")[".tabwright"]
    variables = {**job["variables"], "CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"}
    good = with_target(decodes(30), fp16_bytes=1_000_000_000)
    parity = good.targets["wasm-q4"].parity
    assert parity is not None
    runtime = parity.runtime.model_copy(update={"top1": 0.5})
    equal = {"equal": True, "round_trip": "whole"}
    tokens = tuple(case.model_copy(update=equal) for case in parity.tokens)
    parity = parity.model_copy(update={"tokens": tokens})
    good = with_target(good, parity=parity)
    wrong = with_target(good, parity=parity.model_copy(update={"runtime": runtime}))
    for report, status in ((good, 0), (wrong, 1)):
        report.save(folder / "measured.json")
        done = bash(folder, "\n".join(job["script"]), variables)
        assert done.returncode == status, done.stdout
    assert "Runtime loss: top-1 agreement" in done.stdout

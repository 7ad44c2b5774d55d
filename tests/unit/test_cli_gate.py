"""``gate`` and ``run``: files, exit statuses, and the order of steps."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock
from xml.etree import ElementTree as ET

import pytest

import browser_harness.commands
import exporter.commands
import exporter.reference.make
import tabwright
from browser_harness.browsers import BrowserMissing
from manifests.errors import BadInput
from manifests.report import Report
from tests.unit.reports import healthy_report, sample_report
from tests.unit.test_judge_baseline import decodes, machine

KEPT = "[limits.wasm-q4]\ntarget_bytes = { max = 140e6 }\n"
IMPOSSIBLE = "[limits.wasm-q4]\ntarget_bytes = { max = 1 }\n"
UNJUDGEABLE = (
    '[gate]\ninconclusive = "fail"\n[limits.webgpu-q4]\ndecode_tokens_per_second = { min = 20 }\n'
)


@pytest.fixture(autouse=True)
def no_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def budget(folder: Path, text: str) -> str:
    path = folder / "budget.toml"
    path.write_text(text, "utf-8")
    return str(path)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    healthy_report().save(path)
    return path


@pytest.mark.parametrize(
    ("text", "outcome", "status"),
    [(KEPT, "pass", 0), (IMPOSSIBLE, "fail", 1), (UNJUDGEABLE, "inconclusive", 5)],
)
def test_gate_exits_by_its_verdict_and_writes_it(
    text: str,
    outcome: str,
    status: int,
    report: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["gate", str(report), "--budget", budget(report.parent, text)]
    assert tabwright.call([*arguments, "--format", "json"]) == status
    assert json.loads(capsys.readouterr().out)["outcome"] == outcome
    written = Report.load(report).verdict
    assert written is not None
    assert written.outcome == outcome


def test_gate_names_the_broken_limit(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tabwright.call(["gate", str(report), "--budget", budget(report.parent, IMPOSSIBLE)]) == 1
    printed = capsys.readouterr()
    row = next(line for line in printed.out.splitlines() if "wasm-q4" in line and "fail" in line)
    assert "131.2 MB" in row
    assert printed.err == ""


def test_gate_writes_what_it_is_asked_for(
    report: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = report.parent
    summary = folder / "summary.md"
    summary.write_text("before\n", "utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    arguments = ["gate", str(report), "--budget", budget(folder, IMPOSSIBLE)]
    for name in ("html", "junit", "markdown"):
        arguments += [f"--{name}", str(folder / f"out.{name}")]
    assert tabwright.call(arguments) == 1
    capsys.readouterr()
    assert (folder / "out.html").read_text("utf-8").startswith("<!doctype html>")
    cases = ET.parse(folder / "out.junit").getroot()
    assert cases.get("failures") == "1"
    markdown = (folder / "out.markdown").read_text("utf-8")
    assert summary.read_text("utf-8") == "before\n" + markdown


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[limits.wasm-q4]\ntarget_byts = { max = 1 }\n", "target_bytes"),
        ("[limits.wasm_q4]\ntarget_bytes = { max = 1 }\n", "wasm-q4"),
    ],
)
def test_a_bad_budget_leaves_the_report_alone(
    text: str, hint: str, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = report.read_bytes()
    assert tabwright.call(["gate", str(report), "--budget", budget(report.parent, text)]) == 2
    assert f"did you mean '{hint}'?" in capsys.readouterr().err
    assert report.read_bytes() == before


def test_a_target_of_the_report_may_be_limited_though_tabwright_does_not_know_it(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = healthy_report()
    renamed = {"of-my-own": whole.targets["wasm-q4"]}
    whole.model_copy(update={"targets": renamed}).save(report)
    text = KEPT.replace("wasm-q4", "of-my-own")
    assert tabwright.call(["gate", str(report), "--budget", budget(report.parent, text)]) == 0
    capsys.readouterr()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A report whose decode is a fifth slower, and its baseline."""
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    decodes(36, seed=1).save(new)
    decodes(30).save(old)
    return str(new), str(old)


def test_gate_compares_with_a_baseline(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = pair
    assert tabwright.call(["gate", new, "--baseline", old]) == 1
    printed = capsys.readouterr().out
    assert "regressed: 0.8" in printed
    assert "Compared with SmolLM2-135M-Instruct" in printed
    lax = "[limits.wasm-q4]\ndecode_tokens_per_second = { regression = 0.5 }\n"
    arguments = ["gate", new, "--baseline", old, "--budget", budget(tmp_path, lax)]
    assert tabwright.call([*arguments, "--format", "json"]) == 0
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert check["comparison"]["change"] == "same"


def test_gate_refuses_another_environment(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(tmp_path / "other.json")
    machine(cores=64)(decodes(30)).save(Path(other))
    before = Path(pair[0]).read_bytes()
    assert tabwright.call(["gate", pair[0], "--baseline", other]) == 3
    told = capsys.readouterr().err
    assert "error[not-comparable]" in told
    assert "64 cores" in told
    assert Path(pair[0]).read_bytes() == before


def test_without_a_budget_the_default_one_judges(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The sample's page wrote to the console, and its tokenizer differs in one text of six.
    assert tabwright.call(["gate", str(report)]) == 1
    assert "≤ 0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "environment", "lines"),
    [
        ((), {}, 0),
        ((), {"GITHUB_ACTIONS": "true"}, 1),
        (("--annotations", "github"), {}, 1),
        (("--annotations", "none"), {"GITHUB_ACTIONS": "true"}, 0),
    ],
)
def test_annotations_go_to_stderr_where_they_are_read(
    options: tuple[str, ...],
    environment: dict[str, str],
    lines: int,
    report: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    limits = budget(report.parent, IMPOSSIBLE)
    assert tabwright.call(["gate", str(report), "--budget", limits, *options]) == 1
    printed = capsys.readouterr()
    assert "::error" not in printed.out
    assert printed.err.count("::error title=wasm-q4%3A Size of the target::") == lines


def test_init_proposes_a_budget_that_gate_passes(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = report.read_bytes()
    out = report.parent / "proposed.toml"
    arguments = ["gate", "--init", str(report), "--headroom", "35"]
    assert tabwright.call(arguments) == 0
    text = capsys.readouterr().out
    assert "35 % headroom" in text
    assert tabwright.call([*arguments, "--budget", str(out)]) == 0
    capsys.readouterr()
    assert out.read_text("utf-8") == text.rstrip("\n") + "\n"
    assert report.read_bytes() == before
    assert tabwright.call(["gate", str(report), "--budget", str(out)]) == 0
    assert tabwright.call([*arguments, "--budget", str(out)]) == 2
    assert "error[budget-exists]" in capsys.readouterr().err


def measured(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of ``measure`` where the report says ``name``, of the sample, alone."""
    whole = sample_report()
    report = whole.model_copy(update={"targets": {name: whole.targets[name]}})
    monkeypatch.setattr(browser_harness.commands, "measure_bundle", Mock(return_value=report))
    return tabwright.call(["measure", "bundle", "-o", str(folder / "report.json")])


def test_measure_tells_when_nothing_could_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured("webgpu-q8", tmp_path, monkeypatch) == 4
    assert "page-crashed" in capsys.readouterr().out
    assert measured("wasm-q4", tmp_path, monkeypatch) == 0
    capsys.readouterr()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Stand in for export, reference and measure; ``measure`` leaves a report."""
    steps = Mock()
    monkeypatch.setattr(browser_harness.commands, "check_environment", steps.check)
    monkeypatch.setattr(exporter.commands, "export_bundle", steps.export)
    monkeypatch.setattr(exporter.reference.make, "make_reference", steps.reference)
    monkeypatch.setattr(browser_harness.commands, "measure_bundle", steps.measure)

    def measure(_bundle: Path, _reference: Path, _targets: object, out: Path, **_: object) -> None:
        sample_report().save(out)

    steps.measure.side_effect = measure
    return steps


def run(folder: Path, text: str, *options: str) -> int:
    arguments = ["run", "checkpoint", "--target", "wasm-q4", "--target", "webgpu-q4", *options]
    return tabwright.call([*arguments, "--budget", budget(folder, text), "-o", str(folder / "out")])


def test_run_composes_the_steps(
    steps: Mock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, IMPOSSIBLE) == 1
    out = tmp_path / "out"
    assert [call[0] for call in steps.mock_calls] == ["check", "export", "reference", "measure"]
    assert steps.export.call_args.args == (
        Path("checkpoint"),
        ("wasm-q4", "webgpu-q4"),
        out / "bundle",
    )
    assert steps.reference.call_args.args == (
        Path("checkpoint"),
        out / "bundle",
        out / "reference.json",
    )
    assert {path.name for path in out.iterdir()} == {"report.json", "report.html", "junit.xml"}
    assert "wasm-q4" in capsys.readouterr().out


def test_run_refuses_a_bad_budget_before_it_works(
    steps: Mock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "[limits.wasmq4]\ntarget_bytes = { max = 1 }\n") == 2
    assert "did you mean 'wasm-q4'?" in capsys.readouterr().err
    assert steps.mock_calls == []


def test_run_looks_for_the_browser_before_it_works(
    steps: Mock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps.check.side_effect = BrowserMissing("none here")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("{}")
    assert run(tmp_path, KEPT, "--force") == 4
    assert "none here" in capsys.readouterr().err
    assert [call[0] for call in steps.mock_calls] == ["check"]
    assert (tmp_path / "out" / "report.json").exists()


def test_run_looks_for_cuda_before_it_works(
    steps: Mock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(tmp_path, KEPT, "--device", "cuda") == 4
    assert "error[no-cuda]" in capsys.readouterr().err
    assert [call[0] for call in steps.mock_calls] == ["check"]


def test_run_takes_no_earlier_report_for_its_own(
    steps: Mock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    stale = ("reference.json", "reference.safetensors", "report.json", "report.html", "junit.xml")
    for name in stale:
        (out / name).write_text("of yesterday")
    assert run(tmp_path, KEPT) == 2
    assert "add --force" in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == set(stale)
    # An export that fails leaves the old bundle, which the old report belongs to.
    steps.export.side_effect = BadInput("a.bin: too short")
    assert run(tmp_path, KEPT, "--force") == 3
    assert {path.name for path in out.iterdir()} == set(stale)
    steps.export.side_effect = None
    steps.reference.side_effect = BadInput("b.bin: too short")
    assert run(tmp_path, KEPT, "--force") == 3
    capsys.readouterr()
    assert list(out.iterdir()) == []


def test_run_hands_its_options_on(
    steps: Mock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--browser", "chrome", "--context", "512", "--adapter", "software")
    assert run(tmp_path, KEPT, *options) == 1  # the sample holds a target that failed
    capsys.readouterr()
    assert steps.check.call_args.kwargs == {
        "adapter": "software",
        "browser": Path("chrome"),
        "on_gpu": True,
    }
    assert steps.export.call_args.kwargs["context_length"] == 512
    assert steps.measure.call_args.kwargs["browser"] == Path("chrome")


def test_run_asks_questions_on_the_whole_way(
    steps: Mock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = tmp_path / "questions.jsonl"
    tasks.write_text('{"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}\n')
    assert run(tmp_path, KEPT, "--tasks", str(tasks)) == 1  # as above
    assert steps.reference.call_args.kwargs["tasks"] == tasks
    assert steps.measure.call_args.kwargs["tasks"] == tasks
    capsys.readouterr()
    steps.reset_mock()
    tasks.write_text('{"question": "2 + 2?"}\n')
    assert run(tmp_path, KEPT, "--force", "--tasks", str(tasks)) == 3
    assert "error[question-invalid]" in capsys.readouterr().err
    assert steps.mock_calls == []

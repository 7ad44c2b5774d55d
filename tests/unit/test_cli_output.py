"""stdout is the result and nothing else; progress goes to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import tabwright
from manifests.budget import Limit
from manifests.progress import Bars, Lines


def test_inspect_tells_a_checkpoint_as_json(
    tiny_checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_checkpoint("bf16")
    assert tabwright.call(["inspect", str(path), "--format", "json"]) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    config = json.loads((path / "config.json").read_text())
    assert summary["model_type"] == config["model_type"]
    assert summary["schemes"][0]["scheme"] == "bfloat16"
    assert printed.err == ""


def test_inspect_tells_a_checkpoint_as_text(
    tiny_checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_checkpoint("bf16")
    assert tabwright.call(["inspect", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: safetensors checkpoint, LlamaForCausalLM")


def test_only_a_bundle_has_a_ledger(
    tiny_checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tabwright.call(["inspect", str(tiny_checkpoint("bf16")), "--ledger"]) == 2
    assert "only a bundle has a ledger" in capsys.readouterr().err


def test_show_writes_schemas_and_mappings(capsys: pytest.CaptureFixture[str]) -> None:
    front = tabwright.Front()
    front.show({"url": "x"}, "text of it")
    assert capsys.readouterr().out == "text of it\n"
    front.format = "json"
    front.show({"url": "مرحبا"}, "text of it")
    assert json.loads(capsys.readouterr().out) == {"url": "مرحبا"}
    front.show(Limit(max=2), "text of it")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["max"], shown["level"]) == (2.0, "error")


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("status", [0, 5])
def test_a_reader_that_went_away_changes_no_exit_status(form: str, status: int) -> None:
    # A result longer than a pipe holds, as text that rich lays out and as JSON.
    program = textwrap.dedent(
        """
        import sys
        import click
        from rich.text import Text
        import browser_harness.commands
        import tabwright

        @click.command("doctor")
        @click.pass_context
        def doctor(context):
            context.obj.show({"long": "x" * 2_000_000}, Text("x" * 2_000_000))
            context.exit(int(sys.argv[1]))

        browser_harness.commands.doctor = doctor
        sys.exit(tabwright.call(["doctor", "--format", sys.argv[2]]))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(status), form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == status


def test_progress_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(click, "echo", gone)
    lines = Lines()
    lines("write shards", 1, 2)
    tabwright.Front().fail("code", "sentence", "next")


def test_lines_are_said_at_the_beginning_and_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    for done in range(101):
        lines("write shards", done, 100)
    lines("wait", 0, 0)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["write shards: 0 %", "write shards: 100 %", "wait"]
    assert printed.out == ""


def test_bars_leave_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    bars("write shards", 1, 2)
    bars("wait", 0, 0)
    bars.close()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "write shards" in printed.err
    assert "50%" in printed.err

"""How errors look, and what the process exits with."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest

import tabwright
from manifests.errors import BadInput, EnvironmentProblem

RAISED: dict[str, tuple[BaseException, int, list[str]]] = {
    "bad input": (
        BadInput("a.bin: too short", "copy it again"),
        3,
        ["error[bad-input]: a.bin: too short", "  next: copy it again"],
    ),
    "no next step": (
        EnvironmentProblem("nothing works"),
        4,
        ["error[environment]: nothing works"],
    ),
    "usage": (
        click.UsageError("one or the other"),
        2,
        ["error[usage]: one or the other", "  next: see tabwright doctor --help"],
    ),
    "operating system": (
        OSError(28, "No space left on device", "big.onnx_data"),
        4,
        [
            "error[system]: big.onnx_data: No space left on device",
            "  next: check the path, its permissions and the free space",
        ],
    ),
    "ours": (
        KeyError("lost"),
        70,
        [
            "error[internal]: KeyError: 'lost'",
            "  next: run it again with --debug and report what it prints",
        ],
    ),
    "ctrl-c": (
        KeyboardInterrupt(),
        130,
        ["error[interrupted]: stopped before the end; nothing half-written is left"],
    ),
    "a command's own status": (click.exceptions.Exit(5), 5, []),
}


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Replace ``doctor`` by a command that raises what is put into this list."""
    errors: list[BaseException] = []

    @click.command("doctor")
    def doctor() -> None:
        raise errors[0]

    monkeypatch.setattr("browser_harness.commands.doctor", doctor)
    return errors


@pytest.mark.parametrize("case", RAISED)
def test_errors_are_told_and_exit(
    case: str, raising: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    error, status, lines = RAISED[case]
    raising.append(error)
    assert tabwright.call(["doctor"]) == status
    printed = capsys.readouterr()
    # Click ends the terminal's ^C line itself.
    assert [line for line in printed.err.splitlines() if line] == lines
    assert printed.out == ""


@pytest.mark.parametrize("arguments", [["--debug", "doctor"], ["doctor", "--debug"]])
def test_debug_shows_the_traceback_too(
    arguments: list[str], raising: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    raising.append(BadInput("a.bin: too short"))
    assert tabwright.call(arguments) == 3
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert printed.splitlines()[-1] == "error[bad-input]: a.bin: too short"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["exprt"], "error[usage]: No such command 'exprt'."),
        (["verify"], "error[usage]: Missing argument 'BUNDLE'."),
        (["verify", "x", "--format", "xml"], "error[usage]: Invalid value for '--format'"),
    ],
)
def test_usage_errors(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tabwright.call(arguments) == 2
    assert capsys.readouterr().err.startswith(sentence)


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert tabwright.call([]) == 2
    assert "Usage: tabwright" in capsys.readouterr().err


def test_a_missing_bundle_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tabwright.call(["verify", str(tmp_path / "none")]) == 3
    printed = capsys.readouterr()
    assert printed.err.startswith("error[not-found]: ")
    assert "none" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unwind_the_stack(number: signal.Signals) -> None:
    program = textwrap.dedent(
        """
        import asyncio
        import sys

        import click

        import browser_harness.commands
        import tabwright

        async def work():
            try:
                print("ready", flush=True)
                await asyncio.sleep(60)
            finally:
                print("cleaned", flush=True)

        @click.command("doctor")
        def doctor():
            asyncio.run(work())

        browser_harness.commands.doctor = doctor
        sys.exit(tabwright.call(["doctor"]))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "cleaned\n"
    assert err.strip().startswith("error[interrupted]")


def test_signal_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    tabwright.call(["--version"])
    assert signal.getsignal(signal.SIGTERM) is before

"""What ``--help`` says, and what it must not import to say it."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

import tabwright

HEAVY = {
    "jinja2",
    "mobius",
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "playwright",
    "pydantic",
    "rich",
    "safetensors",
    "starlette",
    "torch",
    "transformers",
    "uvicorn",
}


def imported_by(*arguments: str) -> tuple[int, set[str]]:
    """Exit status of a command line in a fresh interpreter, and the top-level modules it left."""
    program = (
        "import json, sys, tabwright\n"
        f"status = tabwright.call({list(arguments)!r})\n"
        "names = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "print(json.dumps([status, names]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    status, names = json.loads(done.stderr.splitlines()[-1])
    return status, set(names)


def test_help_imports_nothing_heavy() -> None:
    status, names = imported_by("--help")
    assert status == 0
    assert names & HEAVY == set()
    assert "exporter" not in names
    assert "browser_harness" not in names


@pytest.mark.parametrize("command", tabwright.COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    status, names = imported_by(command, "--help")
    assert status == 0
    assert names & HEAVY == set()


@pytest.mark.parametrize("name", tabwright.COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    context = click.Context(tabwright.cli)
    command = tabwright.cli.get_command(context, name)
    assert command is not None
    assert command.help is not None
    assert command.help.splitlines()[0] == tabwright.COMMANDS[name].help


@pytest.mark.parametrize("name", tabwright.COMMANDS)
def test_every_command_takes_format_and_debug_once(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert tabwright.call([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("--format [text|json]") == 2
    assert printed.count("--debug") == 2

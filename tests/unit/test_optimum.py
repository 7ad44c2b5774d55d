"""optimum's environment and how it is run; that its graphs are right is tested elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from exporter.checkpoint import open_checkpoint
from exporter.optimum import environment, export
from exporter.optimum.environment import PINS, optimum_python
from exporter.optimum.errors import OptimumFailed, OptimumUnavailable
from exporter.optimum.export import optimum_graph
from exporter.optimum.process import TimedOut, run
from manifests.progress import silent
from tests.onnx_folders import GPT2

Command = Sequence[str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tabwright"


def test_the_pins_are_exact_and_name_what_is_run() -> None:
    pins = dict(line.split("==") for line in PINS.read_text("utf-8").splitlines())
    assert pins["optimum-onnx"] == "0.1.0"
    assert {"onnx", "onnxruntime", "torch", "transformers"} <= pins.keys()


def test_an_environment_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Command] = []

    def pretend(command: Command, _: float) -> tuple[int, str]:
        commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir()
            (Path(command[-1]) / "bin" / "python").touch()
        return 0, ""

    monkeypatch.setattr(environment, "run", pretend)
    python = optimum_python(silent)
    assert python.is_file()
    assert python.is_relative_to(cache)
    assert [command[2] for command in commands] == ["venv", "pip"]
    assert str(PINS) in commands[1]
    assert optimum_python(silent) == python
    assert len(commands) == 2
    assert [path.name for path in cache.iterdir()] == [python.parent.parent.name]


@pytest.mark.parametrize("ends", ["badly", "late"])
def test_an_environment_that_cannot_be_made_is_not_left(
    ends: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pip(command: Command, seconds: float) -> tuple[int, str]:
        if "venv" in command:
            return 0, ""
        if ends == "late":
            raise TimedOut(seconds)
        return 1, "ERROR: No matching distribution found for optimum-onnx==0.1.0"

    monkeypatch.setattr(environment, "run", pip)
    with pytest.raises(OptimumUnavailable, match=r"No matching|longer than") as caught:
        optimum_python(silent)
    assert "optimum-cli" in caught.value.next_step
    assert list(cache.iterdir()) == []


def test_the_last_line_of_stderr_is_what_it_said() -> None:
    said = "import sys; print('first\\nlast', file=sys.stderr); sys.exit(3)"
    assert run([sys.executable, "-c", said], 60) == (3, "last")


def test_neither_a_late_program_nor_its_children_are_left_running(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(TimedOut):
        run([sys.executable, "-c", script], 5)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)


def test_what_optimum_is_given_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Callable[[str], Path]
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint("bf16"))
    given: dict[str, object] = {}

    def optimum(command: Command, _: float) -> tuple[int, str]:
        source = Path(command[command.index("--model") + 1])
        given.update(json.loads((source / "config.json").read_bytes()))
        assert (source / "model.safetensors").read_bytes() == (
            checkpoint.path / "model.safetensors"
        ).read_bytes()
        Path(command[-1]).mkdir()
        (Path(command[-1]) / "model.onnx").write_bytes((GPT2 / "model.onnx").read_bytes())
        return 0, ""

    monkeypatch.setattr(export, "optimum_python", lambda _: Path("python"))
    monkeypatch.setattr(export, "run", optimum)
    with optimum_graph(checkpoint, silent) as path:
        assert path.is_file()
    assert not path.parent.exists()
    # As transformers 4 spells them.
    own = json.loads((checkpoint.path / "config.json").read_bytes())
    assert given["torch_dtype"] == own["dtype"]
    assert given["rope_theta"] == own["rope_parameters"]["rope_theta"]
    assert not {"dtype", "rope_parameters", "rope_scaling"} & given.keys()


def test_what_optimum_said_is_told(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(export, "optimum_python", lambda _: Path("python"))
    monkeypatch.setattr(export, "run", lambda *_: (1, "ValueError: unsupported architecture"))
    checkpoint = open_checkpoint(tiny_checkpoint("bf16"))
    with (
        pytest.raises(OptimumFailed, match="unsupported architecture"),
        optimum_graph(checkpoint, silent),
    ):
        pass

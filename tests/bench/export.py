"""Export: time and peak memory of whole commands, ours beside other exporters'.

``python -m tests.bench.export`` prints two Markdown tables: a plain bfloat16 checkpoint
through tabwright, onnxruntime-genai's builder and mobius's command; and checkpoints of one
shape in every scheme through tabwright.  A command is measured from its start to its end,
imports included, as the kernel counts it when the process is reaped.

In a round every command runs once; the next round goes the other way round, so that
whatever drifts on the machine falls on all alike.  Figures for docs/ want a quiet machine.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import psutil

from browser_harness.machine import describe_machine

MIB = 1 << 20
OURS = "tabwright"
_SCRIPTS = Path(sys.executable).parent

Command = Callable[[Path, Path], list[str]]


def _tabwright(checkpoint: Path, out: Path, *options: str) -> list[str]:
    target = ["--target", "webgpu-q4", "--output", str(out)]
    return [str(_SCRIPTS / "tabwright"), "export", str(checkpoint), *target, *options]


def _to_nearest(checkpoint: Path, out: Path) -> list[str]:
    """As genai's builder rounds: our default searches scales, which takes its time."""
    return _tabwright(checkpoint, out, "--rounding", "nearest")


def _genai(checkpoint: Path, out: Path) -> list[str]:
    source = ["-i", str(checkpoint), "-o", str(out), "-c", str(out / "cache")]
    builder = "onnxruntime_genai.models.builder"
    return [sys.executable, "-m", builder, *source, "-p", "int4", "-e", "webgpu"]


def _mobius(checkpoint: Path, out: Path) -> list[str]:
    """As small as its command writes: it has no 4 or 8 bits."""
    source = ["--config", str(checkpoint), str(out)]
    return [str(_SCRIPTS / "mobius"), "build", *source, "--dtype", "f16", "--ep", "webgpu"]


#: What is compared, by its name in the table.
TOOLS: MappingProxyType[str, Command] = MappingProxyType(
    {
        OURS: _tabwright,
        f"{OURS}, to nearest": _to_nearest,
        f"onnxruntime-genai {version('onnxruntime-genai')}, int4": _genai,
        f"mobius-onnx {version('mobius-onnx')}, float16": _mobius,
    }
)
#: SmolLM2-135M's shape.
SHAPE: MappingProxyType[str, Any] = MappingProxyType(
    {
        "hidden": 576,
        "intermediate": 1536,
        "layers": 30,
        "heads": 9,
        "kv_heads": 3,
        "vocabulary": 49152,
    }
)
#: Of :data:`tests.checkpoints.VARIANTS`, those that stand for a scheme.
SCHEMES = (
    "bf16",
    "w4a16-g32",
    "w4a16-g32-asymmetric",
    "w8a16-channel",
    "w8a8",
    "fp8-channel",
    "gptq-act-order",
    "awq",
    "llm-int8",
    "nf4-double",
)


@dataclass(frozen=True)
class Cost:
    """Of one command: seconds, and bytes of its process at its largest and of its output."""

    wall: float
    cpu: float
    peak: int
    written: int


def measure(command: list[str], out: Path) -> Cost:
    """Run ``command``, which writes the folder ``out``; remove what it wrote.

    Raises:
        click.ClickException: it failed.
    """
    with tempfile.TemporaryFile() as said:
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise click.ClickException(said.read().decode(errors="replace")[-2000:])
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    peak = used.ru_maxrss * 1024
    # A child's count begins at its parent's size.
    assert peak > psutil.Process().memory_info().rss
    return Cost(wall, used.ru_utime + used.ru_stime, peak, written)


def take_turns(commands: Mapping[str, list[str]], out: Path, rounds: int) -> dict[str, list[Cost]]:
    """Costs of every command, by round; the first call of each only warms the file cache."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        names = list(commands)[:: 1 if number % 2 else -1]
        for name in names:
            click.echo(f"round {number} of {rounds}: {name}", err=True)
            cost = measure(commands[name], out)
            if number:
                costs[name].append(cost)
    return costs


def _row(name: str, costs: list[Cost]) -> str:
    def of(part: Callable[[Cost], float], digits: int) -> str:
        values = [part(cost) for cost in costs]
        low, middle, high = min(values), statistics.median(values), max(values)
        return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"

    return (
        f"| {name} | {of(lambda c: c.wall, 1)} | {of(lambda c: c.cpu, 1)} "
        f"| {of(lambda c: c.peak / MIB, 0)} | {costs[0].written / MIB:.0f} |"
    )


def _table(title: str, costs: Mapping[str, list[Cost]]) -> None:
    click.echo(
        f"\n{title}\n\n| | wall s | CPU s | peak RSS MiB | written MiB |\n"
        "| --- | --- | --- | --- | --- |"
    )
    for name, own in costs.items():
        click.echo(_row(name, own))


def _write_variant(name: str, folder: Path, layers: int) -> None:
    from tests.checkpoints import VARIANTS, write_checkpoint

    shape: dict[str, Any] = {**SHAPE, "layers": layers}
    write_checkpoint(replace(VARIANTS[name], **shape), folder)


def _compare(plain: Path | None, scratch: Path, rounds: int) -> None:
    if plain is None:
        from exporter.compress.demo import plain_checkpoint

        plain = plain_checkpoint()
    out = scratch / "out"
    costs = take_turns({name: tool(plain, out) for name, tool in TOOLS.items()}, out, rounds)
    size = sum(path.stat().st_size for path in plain.glob("*.safetensors")) / MIB
    _table(f"{plain.name}, bfloat16, {size:.0f} MiB, for WebGPU:", costs)


def _schemes(scratch: Path, rounds: int, layers: int) -> None:
    out, commands = scratch / "out", {}
    for name in SCHEMES:
        checkpoint = scratch / name
        # In a process of its own: it needs torch, and this one has to stay small.
        write = ["--write", name, str(checkpoint), "--layers", str(layers)]
        subprocess.run([sys.executable, "-m", "tests.bench.export", *write], check=True)
        commands[name] = _tabwright(checkpoint, out)
    costs = take_turns(commands, out, rounds)
    _table(f"SmolLM2-135M's shape, {layers} layers of random weights, to webgpu-q4:", costs)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Besides one to warm up.")
@click.option("--plain", type=click.Path(path_type=Path), help="A checkpoint for the comparison.")
@click.option("--layers", default=SHAPE["layers"], show_default=True, help="Of the schemes' model.")
@click.option("--only", type=click.Choice(["tools", "schemes"]), help="One of the tables.")
@click.option("--write", nargs=2, type=click.Path(path_type=Path), hidden=True)
def main(
    *,
    rounds: int,
    plain: Path | None,
    layers: int,
    only: str | None,
    write: tuple[Path, Path] | None,
) -> None:
    """Measure whole export commands."""
    if write:
        _write_variant(str(write[0]), write[1], layers)
        return
    machine = describe_machine()
    click.echo(f"{machine.cpu}, {machine.cores} cores; median (range) of {rounds} rounds.")
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        if only != "schemes":
            _compare(plain, Path(scratch), rounds)
        if only != "tools":
            _schemes(Path(scratch), rounds, layers)


if __name__ == "__main__":
    sys.exit(main())

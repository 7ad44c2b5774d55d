"""Export: CPU time and peak memory, and how much of it is the exporter's own.

``python -m tests.bench.memory`` prints a Markdown table.  Every export runs in a process
of its own.  "Own" is the most anonymous memory, looked at every 10 ms, less that after the
imports; it should follow the largest tensor, not the model, which the synthetic checkpoints of
4 and 16 layers show side by side.  The peak also counts files that are mapped, libraries and the
shards that the self-check reads, which the system takes back when it needs the room.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import click

from browser_harness.machine import describe_machine
from browser_harness.plan import PAGE

TARGETS = ("webgpu-q4", "wasm-q4")
RUNTIME = PAGE.parent / "bundle"
MIB = 1 << 20


def export_here(checkpoint: Path, out: Path) -> dict[str, float]:
    """Export in this process and tell what it took, in seconds and bytes."""
    # transformers' modules come with the first graph, whatever its size.
    import transformers.models.llama  # noqa: F401

    from exporter.checkpoint import open_checkpoint
    from exporter.pipeline import export
    from targets import find_targets

    before = _resident(os.getpid(), "RssAnon")
    start = time.monotonic()
    export(checkpoint, find_targets(TARGETS), out, runtime=RUNTIME)
    wall = time.monotonic() - start
    weights = open_checkpoint(checkpoint).weights.values()
    return {
        "cpu": time.process_time(),
        "wall": wall,
        # ``getrusage`` would start from the parent's peak, which fork hands down.
        "peak": _resident(os.getpid(), "VmHWM"),
        "imports": before,
        "largest": max(2 * prod(weight.shape) for weight in weights),
        "source": sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")),
    }


def _resident(pid: int, field: str) -> int:
    """Bytes by their name in the process's status.  Linux only."""
    status = Path(f"/proc/{pid}/status").read_text()
    [kib] = re.findall(rf"{field}:\s+(\d+) kB", status)
    return int(kib) * 1024


def _synthetic(folder: Path, layers: int) -> Path:
    """A Llama of random weights, bfloat16, with ALLaM-7B's head and a narrower body."""
    import torch
    import transformers

    from tests.checkpoints import write_tokenizer

    untyped: Any = transformers
    config = untyped.LlamaConfig(
        vocab_size=64000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        tie_word_embeddings=False,
    )
    path = folder / f"llama-{layers}-layers"
    untyped.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    write_tokenizer(path)
    return path


def _in_a_process(checkpoint: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.memory", "--here", str(checkpoint), str(out)]
    anonymous = 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said)
        while process.poll() is None:
            # Its status is empty once it has ended and nobody has asked for its exit yet.
            with suppress(ValueError):
                anonymous = max(anonymous, _resident(process.pid, "RssAnon"))
            time.sleep(0.01)
        if process.returncode:
            raise click.ClickException(f"the export of {checkpoint} failed")
        said.seek(0)
        result: dict[str, float] = json.loads(said.read().splitlines()[-1])
    return {**result, "own": anonymous - result["imports"]}


@click.command()
@click.option("--here", nargs=2, type=click.Path(path_type=Path), help="export in this process")
@click.option("--rounds", default=3, show_default=True)
def main(here: tuple[Path, Path] | None, rounds: int) -> None:
    """Measure exports of the demo checkpoint and of two synthetic ones."""
    if here:
        click.echo(json.dumps(export_here(*here)))
        return
    from exporter.compress.demo import demo_checkpoint

    machine = describe_machine()
    click.echo(
        f"Export to {' and '.join(TARGETS)}, {machine.cpu}, {machine.cores} cores, median of "
        f"{rounds} runs.\n\n"
        "| checkpoint | weights MiB | CPU s | wall s | peak RSS MiB | own MiB "
        "| largest tensor MiB |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        folder = Path(scratch)
        checkpoints = [demo_checkpoint(), *(_synthetic(folder, layers) for layers in (4, 16))]
        for checkpoint in checkpoints:
            runs = [_in_a_process(checkpoint, folder / f"out-{index}") for index in range(rounds)]
            middle = sorted(runs, key=lambda run: run["peak"])[rounds // 2]
            click.echo(
                f"| {checkpoint.name} | {middle['source'] / MIB:.0f} | {middle['cpu']:.1f} "
                f"| {middle['wall']:.1f} | {middle['peak'] / MIB:.0f} "
                f"| {middle['own'] / MIB:.0f} "
                f"| {middle['largest'] / MIB:.0f} |"
            )
            for index in range(rounds):
                shutil.rmtree(folder / f"out-{index}")


if __name__ == "__main__":
    sys.exit(main())

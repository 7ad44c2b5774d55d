"""Options that commands of several rooms share: one spelling, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)

adapter = click.option(
    "--adapter",
    type=click.Choice(["auto", "hardware", "software"]),
    default="auto",
    show_default=True,
    help="The WebGPU adapter; auto takes hardware where there is some.",
)
browser = click.option(
    "--browser", type=PATH, help="The browser's executable; otherwise one is found."
)
context_length = click.option(
    "--context",
    "context_length",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Longest context to promise; by default the checkpoint's own, at most 8192.",
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where PyTorch runs; auto takes CUDA where there is one.",
)
head_bits = click.option(
    "--head-bits",
    type=click.Choice([4, 8]),
    help="Width of the output head and the embedding; by default the target's own, 8.",
)
lora = click.option(
    "--lora",
    type=PATH,
    metavar="FOLDER",
    help="A PEFT adapter that is merged into the checkpoint.",
)
original = click.option(
    "--original",
    type=PATH,
    metavar="CHECKPOINT",
    help="The uncompressed model: what compression cost is told, too.",
)
rounding = click.option(
    "--rounding",
    type=click.Choice(["search", "nearest"]),
    default="search",
    show_default=True,
    help="How scales are chosen for linears that come as floats.",
)
tasks = click.option(
    "--tasks",
    type=PATH,
    metavar="FILE",
    help="Questions with choices to be asked, JSON Lines with ArabicMMLU's or MMLU's columns.",
)
wasm_threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="WASM threads.  [default: half of the cores, at most 4]",
)

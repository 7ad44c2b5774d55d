"""The command that hands over to lm-evaluation-harness."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import click

from manifests.errors import EnvironmentProblem


class EvalMissing(EnvironmentProblem):
    """The packages of the extra ``eval`` are not installed."""

    code = "eval-missing"

    def __init__(self) -> None:
        super().__init__(
            "the package lm-eval is not installed", "run pip install 'tabwright[eval]'"
        )


@click.command(
    name="lm-eval",
    context_settings={"ignore_unknown_options": True},
    epilog=(
        "\b\nFor example:\n"
        "  tabwright lm-eval --model tabwright --model_args bundle=DIR,target=wasm-q4 \\\n"
        "    --tasks arabicmmlu\n"
        "  tabwright lm-eval -- --help"
    ),
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def lm_eval(context: click.Context, *, arguments: tuple[str, ...]) -> None:
    """Run lm-evaluation-harness on a bundle.

    Takes lm_eval's own command line, with 'tabwright' among its models, and prints what
    lm_eval prints.  Model arguments: bundle and target; adapter, threads, browser and
    max_length where the defaults do not suit.
    """
    if find_spec("lm_eval") is None:
        raise EvalMissing
    # Registers itself with lm_eval by being imported.
    importlib.import_module("browser_harness.evaluation.model")
    from lm_eval.__main__ import cli_evaluate

    with _command_line("lm_eval", *arguments):
        try:
            cli_evaluate()
        except SystemExit as end:
            context.exit(end.code if isinstance(end.code, int) else 0)


@contextmanager
def _command_line(*words: str) -> Iterator[None]:
    """lm_eval reads the process's own command line."""
    before = sys.argv
    sys.argv = list(words)
    try:
        yield
    finally:
        sys.argv = before

"""The front door: command names, errors and exit statuses.  The work is in the rooms.

Importing this module must stay cheap: ``tabwright --help`` imports no library that
a command alone needs.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from manifests.errors import (
    EXIT_ENVIRONMENT,
    EXIT_INTERNAL,
    EXIT_OK,
    EXIT_USAGE,
    Interrupted,
    TabwrightError,
)
from manifests.progress import Bars, Lines, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from manifests.base import Schema
    from manifests.progress import Progress

#: Columns of a table where stdout is no terminal: names stay whole, so that grep finds them.
LOG_WIDTH = 160


class Entry(NamedTuple):
    """Where a command lives, and what ``--help`` says without going there."""

    path: str
    help: str


COMMANDS: dict[str, Entry] = {
    "run": Entry("whole_way:run", "Export a checkpoint, measure it in a browser, and judge it."),
    "compress": Entry("exporter.compress.commands:compress", "Compress a checkpoint."),
    "export": Entry("exporter.commands:export", "Turn a checkpoint into a bundle."),
    "reference": Entry(
        "exporter.reference.commands:reference", "Write PyTorch's answers and speed."
    ),
    "measure": Entry("browser_harness.commands:measure", "Run a bundle in a browser."),
    "lm-eval": Entry(
        "browser_harness.evaluation.commands:lm_eval", "Run lm-evaluation-harness on a bundle."
    ),
    "diagnose": Entry("whole_way:diagnose", "Name the first tensor that a browser gets wrong."),
    "gate": Entry("browser_harness.judging.commands:gate", "Judge a report by a budget."),
    "compare": Entry(
        "browser_harness.judging.commands:compare", "Show several reports side by side."
    ),
    "trend": Entry(
        "browser_harness.judging.commands:trend", "Show how the figures went over a history."
    ),
    "inspect": Entry("exporter.commands:inspect", "Tell what a checkpoint or a bundle is."),
    "fit": Entry("browser_harness.commands:fit", "Tell how much memory a bundle needs."),
    "verify": Entry("exporter.commands:verify", "Check that a bundle is whole."),
    "serve": Entry("browser_harness.commands:serve", "Open a bundle in your own browser."),
    "demo": Entry("exporter.commands:demo", "Make a demo's compressed checkpoint."),
    "doctor": Entry("browser_harness.commands:doctor", "Tell what this machine can do."),
}


class Front:
    """The :class:`manifests.console.Console` of a person or script at a command line."""

    def __init__(self) -> None:
        self.debug = False
        self.format = "text"
        self._progress = Bars() if sys.stderr.isatty() else Lines()

    @property
    def progress(self) -> Progress:
        """Bars on a terminal, lines elsewhere; on stderr."""
        return self._progress

    @property
    def targets(self) -> frozenset[str]:
        """Names of every target there is."""
        from targets import TARGETS

        return frozenset(TARGETS)

    def show(self, document: Schema | Mapping[str, object], text: RenderableType) -> None:
        """Print a command's result on stdout, for as long as somebody reads it."""
        self.close()
        if self.format == "text":
            written = self._lay_out(text)
        elif isinstance(document, Mapping):
            written = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        else:
            written = document.to_json()
        try:
            click.echo(written, nl=False)
        except BrokenPipeError:
            # As in 'tabwright ... | head': the exit status is still asked for, and Python
            # would complain of what is left in the buffer when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @staticmethod
    def _lay_out(text: RenderableType) -> str:
        if isinstance(text, str):
            return f"{text}\n"
        from rich.console import Console

        width = None if sys.stdout.isatty() else LOG_WIDTH
        console = Console(width=width, highlight=False)
        with console.capture() as captured:
            console.print(text)
        return captured.get()

    def fail(self, code: str, sentence: str, next_step: str = "") -> None:
        """Print an error on stderr, with its traceback if that was asked for."""
        self.close()
        if self.debug:
            traceback.print_exc()
        say(f"error[{code}]: {sentence}")
        if next_step:
            say(f"  next: {next_step}")

    def close(self) -> None:
        """End the progress display."""
        self._progress.close()


def _set(context: click.Context, option: click.Parameter, value: object) -> None:
    if value:
        setattr(context.find_object(Front), str(option.name), value)


DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, callback=_set, help="Show tracebacks."
)
FORMAT = click.Option(
    ["--format"],
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    expose_value=False,
    callback=_set,
    help="How the result is written to stdout.",
)


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's signature
        """Names in the order in which one needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - Click's signature
        """Import the command and give it the options that all commands share."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].path.split(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name].path} is no Click command")
        command.params.extend(option for option in (FORMAT, DEBUG) if option not in command.params)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - Click's signature
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    params=[DEBUG],
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit status: 0 ok, 1 gate failed, 2 usage, 3 bad input, 4 environment, "
        "5 inconclusive, 70 internal error, 130 interrupted."
    ),
)
@click.version_option(package_name="tabwright", message="%(prog)s %(version)s")
def cli() -> None:
    """Build compressed language models for browser tabs, run them there, and judge them."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does: asyncio swaps SIGINT's handler for one that cancels its tasks."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(number, frame)


def _explain(front: Front, error: BaseException) -> int:
    """Print ``error`` as the user should see it and choose the exit status."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return EXIT_USAGE
        case click.ClickException():
            path = (
                error.ctx.command_path
                if isinstance(error, click.UsageError) and error.ctx
                else "tabwright"
            )
            front.fail("usage", error.format_message(), f"see {path} --help")
            return EXIT_USAGE
        case TabwrightError():
            front.fail(error.code, str(error), error.next_step)
            return error.exit_status
        case click.Abort() | KeyboardInterrupt():
            return _explain(front, Interrupted())
        case SystemExit():
            # Click's word for a pipe that nobody reads any more: there is no one to tell.
            return EXIT_ENVIRONMENT
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            front.fail(
                "system",
                f"{where}{error.strerror or error}",
                "check the path, its permissions and the free space",
            )
            return EXIT_ENVIRONMENT
        case _:
            front.fail(
                "internal",
                f"{type(error).__name__}: {error}",
                "run it again with --debug and report what it prints",
            )
            return EXIT_INTERNAL


@contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind the stack, so that whatever is open is closed.

    A signal that is ignored stays so: that is what nohup asks for.
    """
    numbers = [signal.SIGTERM, signal.SIGHUP]
    previous = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    for number in previous:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def call(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    front = Front()
    try:
        with _ends_like_ctrl_c():
            status = cli.main(arguments, "tabwright", standalone_mode=False, obj=front)
    except BaseException as error:  # noqa: BLE001 - the last handler: nobody else explains it
        return _explain(front, error)
    finally:
        front.close()
    return status if isinstance(status, int) else EXIT_OK


def main() -> NoReturn:
    """Run the command line of this process."""
    sys.exit(call())


if __name__ == "__main__":
    main()

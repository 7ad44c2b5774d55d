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
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from manifests.errors import (
    EXIT_ENVIRONMENT,
    EXIT_GATE_FAILED,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    TabwrightError,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from browser_harness.flags import AdapterChoice
    from exporter.reference.model import DeviceChoice
    from manifests.base import Schema
    from manifests.progress import Progress
    from targets.catalog import RoundingMethod

#: Seconds between two lines about the same phase where stderr is no terminal.
LINE_INTERVAL = 10.0
#: What ``run`` leaves in its output folder.
OUTPUTS = ("bundle", "reference.json", "report.json", "report.html", "junit.xml")
#: Columns of a table where stdout is no terminal: names stay whole, so that grep finds them.
LOG_WIDTH = 160


class Entry(NamedTuple):
    """Where a command lives, and what ``--help`` says without going there."""

    path: str
    help: str


COMMANDS: dict[str, Entry] = {
    "run": Entry("tabwright:run", "Export a checkpoint, measure it in a browser, and judge it."),
    "compress": Entry("exporter.compress.commands:compress", "Compress a checkpoint."),
    "export": Entry("exporter.commands:export", "Turn a checkpoint into a bundle."),
    "reference": Entry("exporter.commands:reference", "Write PyTorch's answers and speed."),
    "measure": Entry("browser_harness.commands:measure", "Run a bundle in a browser."),
    "lm-eval": Entry(
        "browser_harness.evaluation.commands:lm_eval", "Run lm-evaluation-harness on a bundle."
    ),
    "diagnose": Entry("tabwright:diagnose", "Name the first tensor that a browser gets wrong."),
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


def _tell(line: str) -> None:
    """Write to stderr; that nobody reads there is no reason to stop."""
    with suppress(BrokenPipeError):
        click.echo(line, err=True)


class Bars:
    """Progress as bars on a terminal, one per phase."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Draw ``phase`` at ``done`` of ``total``; a total of 0 is unknown."""
        if self._bars is None:
            self._bars = self._start()
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=None)
        self._bars.update(self._tasks[phase], completed=done, total=total or None)

    def close(self) -> None:
        """Leave the bars as they stand and give the terminal back."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._tasks = {}

    @staticmethod
    def _start() -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

        bars = Progress(
            "{task.description}",
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            redirect_stdout=False,
        )
        bars.start()
        return bars


class Lines:
    """Progress as lines, for logs: when a phase begins, when it ends, and now and then."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Say where ``phase`` is, if it is time to."""
        now = time.monotonic()
        ended = 0 < total <= done
        if not ended and now - self._said.get(phase, -LINE_INTERVAL) < LINE_INTERVAL:
            return
        self._said[phase] = now
        share = f": {100 * done // total} %" if total else ""
        _tell(f"{phase}{share}")

    def close(self) -> None:
        """Forget the phases."""
        self._said = {}


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
        _tell(f"error[{code}]: {sentence}")
        if next_step:
            _tell(f"  next: {next_step}")

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


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, required=True, help="Repeat for several.")
@click.option(
    "--budget", type=click.Path(path_type=Path), help="The limits; by default docs/budget.md's."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option("--force", is_flag=True, help="Replace what an earlier run left there.")
@click.option(
    "--context",
    "context_length",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Longest context to promise; by default the checkpoint's own, at most 8192.",
)
@click.option(
    "--lora",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A PEFT adapter that is merged into the checkpoint.",
)
@click.option(
    "--head-bits",
    type=click.Choice([4, 8]),
    help="Width of the output head and the embedding; by default the target's own, 8.",
)
@click.option(
    "--rounding",
    type=click.Choice(["search", "nearest"]),
    default="search",
    show_default=True,
    help="How scales are chosen for linears that come as floats.",
)
@click.option(
    "--original",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="The uncompressed model: what compression cost is told, too.",
)
@click.option(
    "--adapter",
    type=click.Choice(["auto", "hardware", "software"]),
    default="auto",
    show_default=True,
    help="The WebGPU adapter; auto takes hardware where there is some.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where PyTorch runs; auto takes CUDA where there is one.",
)
@click.option("--threads", type=click.IntRange(min=1), help="WASM threads.")
@click.option(
    "--browser",
    type=click.Path(path_type=Path),
    help="The browser's executable; otherwise one is found.",
)
@click.pass_context
def run(
    context: click.Context,
    *,
    checkpoint: Path,
    targets: tuple[str, ...],
    budget: Path | None,
    output: Path,
    force: bool,
    context_length: int | None,
    lora: Path | None,
    head_bits: int | None,
    rounding: RoundingMethod,
    original: Path | None,
    adapter: AdapterChoice,
    device: DeviceChoice,
    threads: int | None,
    browser: Path | None,
) -> None:
    """Export a checkpoint, measure it in a browser, and judge it.

    Leaves bundle/, reference.json, report.json, report.html and junit.xml in the
    output folder.  Browser, adapter and CUDA are looked for before anything is
    written.  Exit status: 0 passed, 1 failed, 5 inconclusive.
    """
    from browser_harness import commands as harness
    from browser_harness.judge import check_budget, exit_status
    from browser_harness.judging import commands as judging
    from browser_harness.report import render
    from exporter import commands as exporter
    from manifests.budget import Budget
    from targets import find_targets

    front = context.ensure_object(Front)
    progress = front.progress
    # What would fail at the end is told before minutes are spent.
    if budget is not None:
        check_budget(Budget.load(budget), front.targets)
    on_gpu = any(each.execution_provider == "webgpu" for each in find_targets(targets))
    harness.check_environment(adapter=adapter, browser=browser, on_gpu=on_gpu)
    if device == "cuda":
        from exporter.reference.model import choose_device

        choose_device(device)
    bundle, reference, report, html, junit = (output / name for name in OUTPUTS)
    earlier = (reference, reference.with_suffix(".safetensors"), report, html, junit)
    _check_free(earlier, force=force)
    exporter.export_bundle(
        checkpoint,
        targets,
        bundle,
        force=force,
        context_length=context_length,
        adapter=lora,
        head_bits=head_bits,
        rounding=rounding,
        progress=progress,
    )
    # None of an earlier run's files may be taken for this bundle's.
    for file in earlier:
        file.unlink(missing_ok=True)
    exporter.write_reference(
        checkpoint,
        bundle,
        reference,
        device=device,
        adapter=lora,
        original=original,
        progress=progress,
    )
    harness.measure_bundle(
        bundle,
        reference,
        targets,
        report,
        adapter=adapter,
        threads=threads,
        browser=browser,
        progress=progress,
    )
    judged, verdict = judging.judge_report(report, budget, front.targets)
    judging.write_views(judged, html=html, junit=junit)
    front.show(judged, render(judged))
    context.exit(exit_status(verdict))


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="What it was made from."
)
@click.option("--target", help="A target of the bundle.  [default: the first]")
@click.option("--lora", type=click.Path(path_type=Path), metavar="FOLDER", help="As for 'export'.")
@click.option("--tolerance", type=click.FloatRange(min=0), help="Relative deviation allowed.")
@click.option(
    "--adapter",
    type=click.Choice(["auto", "hardware", "software"]),
    default="auto",
    show_default=True,
    help="The WebGPU adapter; auto takes hardware where there is some.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where PyTorch runs; auto takes CUDA where there is one.",
)
@click.option("--browser", type=click.Path(path_type=Path), help="The browser's executable.")
@click.pass_context
def diagnose(
    context: click.Context,
    *,
    bundle: Path,
    checkpoint: Path,
    target: str | None,
    lora: Path | None,
    tolerance: float | None,
    adapter: AdapterChoice,
    device: DeviceChoice,
    browser: Path | None,
) -> None:
    """Name the first tensor that a browser gets wrong.

    Compares hidden states between PyTorch and the browser, layer by layer, then tensor by
    tensor in the first layer that leaves the tolerance.  Exit status: 0 when none does,
    1 when one is named.
    """
    from browser_harness import commands as harness
    from exporter.diagnose.bisect import diagnose as bisect
    from exporter.diagnose.view import diagnosis_view
    from manifests.bundle import read_manifest

    front = context.ensure_object(Front)
    found = bisect(
        bundle,
        checkpoint,
        target or next(iter(read_manifest(bundle).targets)),
        harness.inside(bundle, target, adapter=adapter, browser=browser),
        adapter=lora,
        device=device,
        tolerance=tolerance,
        progress=front.progress,
    )
    front.show(found, diagnosis_view(found))
    context.exit(EXIT_OK if found.first is None else EXIT_GATE_FAILED)


def _check_free(files: Iterable[Path], *, force: bool) -> None:
    """Refuse an output folder with an earlier run's files in it.

    Raises:
        OutputExists: there is one, and it may not be replaced.
    """
    from exporter.write.errors import OutputExists

    for file in files:
        if file.exists() and not force:
            raise OutputExists(file)


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
            front.fail("interrupted", "stopped before the end; nothing half-written is left")
            return EXIT_INTERRUPTED
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

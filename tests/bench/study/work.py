"""One row: compress, export, prove, score.  What is finished is not done again."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from browser_harness.plan import PAGE
from browser_harness.summary import target_bytes
from exporter.checkpoint import open_checkpoint
from exporter.compress.calibration import PACKAGE_SET
from exporter.compress.chain import SUMMARY, Compression, compress
from exporter.compress.recipes import plan
from exporter.pipeline import export
from exporter.prove import prove
from manifests.progress import Progress
from manifests.reference import ScoredText
from targets import find_targets
from tests.bench.study.rows import ROWS, InBrowser, Proof, Result, Row
from tests.bench.study.scoring import Top, score_in_browser, score_in_pytorch

#: Counts changes of what a row measures, so that what an older one found is not taken.
_REVISION = 1
_MAKERS = ("bitsandbytes", "compressed-tensors", "llmcompressor", "torch", "transformers")
_SCORERS = ("onnx-ir", "torch", "transformers")


@dataclass(frozen=True)
class Subject:
    """A model and the windows that it is scored on; ``folder`` keeps what was made."""

    name: str
    checkpoint: Path
    windows: tuple[ScoredText, ...]
    folder: Path
    progress: Progress

    @cached_property
    def _making(self) -> str:
        """Digest of what every compression depends on."""
        source = open_checkpoint(self.checkpoint).source(self.progress).digest
        calibration = hashlib.sha256(PACKAGE_SET.read_bytes()).hexdigest()
        return _digest(source, calibration, [version(tool) for tool in _MAKERS])

    @cached_property
    def _scoring(self) -> str:
        """Digest of what every score depends on besides."""
        windows = [text.model_dump() for text in self.windows]
        return _digest(_REVISION, windows, [version(tool) for tool in _SCORERS])

    @cached_property
    def expected(self) -> Top:
        """The uncompressed model's tokens."""
        path = self.folder / f"expected-{self._making}-{self._scoring}.json"
        if not path.is_file():
            tally = score_in_pytorch(self.checkpoint, self.windows, self.progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(tally.top))
        found: Top = json.loads(path.read_text())
        return found

    def key(self, row: Row) -> str:
        """Digest of everything that decides a row."""
        return _digest(self._key_of_checkpoint(row), self._scoring, row.targets)

    def _key_of_checkpoint(self, row: Row) -> str:
        before = self._key_of_checkpoint(ROWS[row.before]) if row.before else ""
        return _digest(self._making, row.methods, dict(row.options), before)

    def result(self, row: Row) -> Result | None:
        """What is kept of a row, unless something that decides it has changed."""
        path = self._path(row)
        kept = Result.load(path) if path.is_file() else None
        return kept if kept is not None and kept.key == self.key(row) else None

    def keep(self, row: Row, result: Result) -> None:
        """Keep a row."""
        result.save(self._path(row))

    def compressed(self, row: Row) -> Path:
        """The row's checkpoint, made unless it is there."""
        if not row.methods:
            return self.checkpoint
        out = self.folder / f"{row.name}-{self._key_of_checkpoint(row)}"
        if not out.is_dir():
            source = self.compressed(ROWS[row.before]) if row.before else self.checkpoint
            methods, settings = plan(row.methods, **row.options)
            compress(source, out, methods, settings, self.progress)
        return out

    def _path(self, row: Row) -> Path:
        return self.folder / f"{row.name}.json"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def work(subject: Subject, row: Row) -> Result:
    """Find everything out about a row."""
    started = time.monotonic()
    progress = subject.progress
    checkpoint = subject.compressed(row)
    opened = open_checkpoint(checkpoint)
    vocabulary = int(opened.config["vocab_size"])
    size = _weights_bytes(checkpoint)
    summary = checkpoint / SUMMARY
    tally = score_in_pytorch(checkpoint, subject.windows, progress)
    browsers: dict[str, InBrowser] = {}
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        bundle = Path(scratch) / "bundle"
        manifest = export(
            checkpoint,
            find_targets(row.targets),
            bundle,
            runtime=PAGE.parent / "bundle",
            progress=progress,
        )
        proof = prove(bundle, checkpoint, None, progress)
        for target in row.targets:
            found, browser = score_in_browser(bundle, target, vocabulary, subject.windows, progress)
            scores = found.scores(subject.expected)
            browsers[target] = InBrowser(
                download_bytes=target_bytes(manifest, target),
                browser=browser,
                **scores.model_dump(),
            )
    return Result(
        model=subject.name,
        row=row.name,
        key=subject.key(row),
        weights_bytes=size,
        ratio=_weights_bytes(subject.checkpoint) / size,
        compression=Compression.load(summary) if summary.is_file() else None,
        pytorch=tally.scores(subject.expected),
        browser=browsers,
        proof={
            name: Proof(
                exact=proven.exact,
                requantised=proven.requantised,
                codes_compared=proven.codes_compared,
                largest_rms=proven.largest_rms,
            )
            for name, proven in proof.weights.items()
        },
        seconds=time.monotonic() - started,
    )


def _weights_bytes(checkpoint: Path) -> int:
    return sum(path.stat().st_size for path in open_checkpoint(checkpoint).weight_files)

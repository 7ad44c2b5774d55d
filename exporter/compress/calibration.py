"""Text to calibrate with, and the samples that are drawn from it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from exporter.compress.errors import BadCalibration, TooLittleText
from exporter.compress.recipes import Settings
from manifests.base import Schema
from manifests.json_text import parse_line

#: Short paragraphs written for this purpose, English and Arabic.
PACKAGE_SET = Path(__file__).with_name("calibration.jsonl")
#: What a text without a language is counted under.
_UNNAMED = "unnamed"


class Calibration(Schema):
    """What a checkpoint was calibrated with.

    ``sha256`` is of the text's file; ``languages`` counts samples.
    """

    source: str
    sha256: str
    samples: int
    tokens: int
    languages: dict[str, int]
    sequence_length: int
    seed: int


@dataclass(frozen=True)
class Samples:
    """Token ids to calibrate with, and where they are from."""

    ids: tuple[tuple[int, ...], ...]
    calibration: Calibration


def draw_samples(tokenizer: Any, settings: Settings) -> Samples:
    """Draw samples in random order, from every language alike.

    A text makes one sample for every ``sequence_length`` tokens; each begins with the
    special tokens that ``tokenizer`` begins a text with.

    Raises:
        BadCalibration: the file cannot be read as text.
        TooLittleText: it does not make enough samples.
    """
    path = settings.calibration or PACKAGE_SET
    source = path.name if settings.calibration else "tabwright's own set"
    raw = _read(path)
    beginning = tuple(tokenizer("")["input_ids"])
    room = settings.sequence_length - len(beginning)
    pieces: defaultdict[str, list[tuple[int, ...]]] = defaultdict(list)
    for language, text in _texts(path, raw):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        cuts = (ids[start : start + room] for start in range(0, len(ids), room))
        # A single token predicts nothing.
        pieces[language] += [(*beginning, *cut) for cut in cuts if len(cut) > 1]
    dice = random.Random(settings.seed)  # noqa: S311 - no secret
    for found in pieces.values():
        dice.shuffle(found)
    turns = zip_longest(*([(name, ids) for ids in pieces[name]] for name in sorted(pieces)))
    drawn = [turn for turn in chain.from_iterable(turns) if turn is not None]
    if len(drawn) < settings.samples:
        raise TooLittleText(path, len(drawn), settings.samples)
    chosen = drawn[: settings.samples]
    ids = tuple(sample for _, sample in chosen)
    return Samples(
        ids,
        Calibration(
            source=source,
            sha256=hashlib.sha256(raw).hexdigest(),
            samples=len(ids),
            tokens=sum(len(sample) for sample in ids),
            languages=dict(sorted(Counter(language for language, _ in chosen).items())),
            sequence_length=settings.sequence_length,
            seed=settings.seed,
        ),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCalibration(path, error.strerror or str(error)) from None


def _texts(path: Path, raw: bytes) -> Iterator[tuple[str, str]]:
    """Language and text of each text in a file."""
    try:
        whole = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadCalibration(path, f"is not UTF-8 (byte {error.start})") from None
    if path.suffix != ".jsonl":
        yield _UNNAMED, whole
        return
    # Only a line feed ends a line: JSON strings may hold the other separators.
    for number, line in enumerate(whole.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = parse_line(line)
        except (ValueError, RecursionError):
            raise BadCalibration(path, f"line {number} is not JSON") from None
        text = entry.get("text") if isinstance(entry, dict) else None
        language = entry.get("language", _UNNAMED) if isinstance(entry, dict) else None
        if not isinstance(text, str) or not isinstance(language, str):
            raise BadCalibration(path, f"line {number} has no text, or a language that is no name")
        yield language, text

"""Questions with choices, and what a model answers them.

A file is JSON Lines; each row has the columns of one of :data:`LAYOUTS`.  How a question is
put, and how an answer is read, is part of the contract: PyTorch and the browser do both by
what is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from manifests.base import Real, Schema
from manifests.bundle import Sha256
from manifests.errors import BadInput, NotFound
from manifests.json_text import parse_line

LETTERS = "ABCDEFGHIJ"
_OPTIONS = tuple(f"Option {number}" for number in range(1, 6))


class QuestionInvalid(BadInput):
    """A row of a file of questions cannot be asked."""

    code = "question-invalid"

    def __init__(self, path: Path, line: int, reason: str) -> None:
        known = "; ".join(
            f"{name}: {', '.join(layout.columns)}" for name, layout in LAYOUTS.items()
        )
        super().__init__(
            f"{path}, line {line}: {reason}", f"give every row the columns of one of: {known}"
        )


@dataclass(frozen=True)
class Question:
    """A question, its choices, and the index of the right one."""

    line: int
    text: str
    choices: tuple[str, ...]
    right: int

    @property
    def prompt(self) -> str:
        """The question as MMLU puts it, with no examples before it."""
        lines = (
            f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False)
        )
        return "\n".join((self.text, *lines, "Answer:"))

    @property
    def continuations(self) -> tuple[str, ...]:
        """What may follow the prompt: a letter for each choice."""
        return tuple(f" {letter}" for letter in LETTERS[: len(self.choices)])


class Answer(Schema):
    """What a model made of a question: nats of each choice's letter; ``right`` is an index."""

    line: int
    text: str
    choices: tuple[str, ...]
    right: int
    logprobs: tuple[Real, ...]

    @property
    def chosen(self) -> int:
        """The index of the likeliest letter; the first of equals."""
        return max(range(len(self.logprobs)), key=self.logprobs.__getitem__)

    @property
    def correct(self) -> bool:
        """Whether that is the right one."""
        return self.chosen == self.right


class Answers(Schema):
    """A file of questions, by name and digest, and the answers to it.

    ``cut`` questions were longer than the model's context and lost their beginning.
    """

    file: str
    sha256: Sha256
    cut: int = 0
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Questions:
    """A file of questions."""

    file: str
    sha256: str
    questions: tuple[Question, ...]

    @classmethod
    def load(cls, path: Path) -> Questions:
        """Read ``path``.

        Raises:
            NotFound: no such file.
            QuestionInvalid: a row is no question, or there is none; names the line.
        """
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(path, "file of questions") from None
        rows = enumerate(data.splitlines(), 1)
        found = tuple(_question(path, line, row) for line, row in rows if row.strip())
        if not found:
            raise QuestionInvalid(path, 1, "there is no question in it")
        return cls(path.name, hashlib.sha256(data).hexdigest(), found)

    def answered(self, logprobs: Mapping[int, tuple[float, ...]], cut: int) -> Answers:
        """The answers, from the nats of each choice's letter by the question's index."""
        return Answers(
            file=self.file,
            sha256=self.sha256,
            cut=cut,
            answers=tuple(
                Answer(
                    line=question.line,
                    text=question.text,
                    choices=question.choices,
                    right=question.right,
                    logprobs=logprobs[index],
                )
                for index, question in enumerate(self.questions)
                if index in logprobs
            ),
        )


Row = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """The columns of a row, and its question, choices and answer."""

    columns: tuple[str, ...]
    read: Callable[[Row], tuple[str, list[Any], Any]]


def _arabic_mmlu(row: Row) -> tuple[str, list[Any], Any]:
    options = [row.get(option) for option in _OPTIONS]
    while options and options[-1] in (None, ""):
        options.pop()
    parts = [part for part in (row.get("Context"), row["Question"]) if part]
    return "\n\n".join(map(str, parts)), options, row["Answer Key"]


def _mmlu(row: Row) -> tuple[str, list[Any], Any]:
    return row["question"], row["choices"], row["answer"]


LAYOUTS: MappingProxyType[str, Layout] = MappingProxyType(
    {
        "ArabicMMLU": Layout(("Question", "Option 1", "Option 2", "Answer Key"), _arabic_mmlu),
        "MMLU": Layout(("question", "choices", "answer"), _mmlu),
    }
)


def _question(path: Path, line: int, text: bytes) -> Question:
    try:
        row = parse_line(text)
    except (ValueError, RecursionError) as error:
        raise QuestionInvalid(path, line, f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise QuestionInvalid(path, line, "not an object")
    layout = next((each for each in LAYOUTS.values() if row.keys() >= set(each.columns)), None)
    if layout is None:
        raise QuestionInvalid(path, line, f"unknown columns {', '.join(row) or '(none)'}")
    asked, choices, answer = layout.read(row)
    if not isinstance(asked, str) or not asked.strip():
        raise QuestionInvalid(path, line, "no question")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise QuestionInvalid(path, line, f"not 2 to {len(LETTERS)} choices")
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise QuestionInvalid(path, line, "a choice that is no text")
    right = LETTERS.find(answer) if isinstance(answer, str) and len(answer) == 1 else answer
    if type(right) is not int or not 0 <= right < len(choices):
        raise QuestionInvalid(path, line, f"the answer {answer!r} is none of {len(choices)}")
    return Question(line, asked.strip(), tuple(choices), right)

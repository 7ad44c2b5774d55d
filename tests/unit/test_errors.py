"""What an error quotes of a hostile file reaches a terminal as text."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import NotFound, TabwrightError


def test_what_would_steer_a_terminal_is_escaped() -> None:
    error = TabwrightError("tensor \x1b[2J\nerror[ok]: \ud800 كلمة\u202e")
    assert str(error) == r"tensor \x1b[2J\nerror[ok]: \ud800 كلمة\u202e"


def test_a_long_sentence_keeps_its_ends() -> None:
    sentence = str(NotFound(Path("/" + "a" * 100_000), "bundle"))
    assert len(sentence) < 2100
    assert sentence.startswith("/aaa")
    assert sentence.endswith("aaa: no such bundle")

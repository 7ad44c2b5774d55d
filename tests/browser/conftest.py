"""What the browser tests share: a place for temporary files, and a look for leftovers."""

from __future__ import annotations

from pathlib import Path

from tests.faults.leftovers import nothing_left, temporary

__all__ = ["nothing_left", "temporary"]  # fixtures of every test beside or below this file

FAKE_PAGE = Path(__file__).parent / "fake_page"

"""Panics of libraries in Rust, which Python sees as something that no one may catch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2


class Panicked(Exception):
    """What a library said as it gave up."""


@contextmanager
def panics_caught() -> Iterator[None]:
    """Make a panic an exception like any other, and keep its stack off stderr.

    pyo3's PanicException can be told by its name only.

    Raises:
        Panicked: the library panicked.
    """
    saved, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise Panicked(str(error)) from None
        raise
    finally:
        os.dup2(saved, _STDERR)
        os.close(saved)
        os.close(nowhere)

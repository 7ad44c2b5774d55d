"""Keep libraries' own progress bars, log lines and warnings off the terminal."""

from __future__ import annotations

import logging as standard_logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm
from transformers.utils import logging as untyped_logging

#: One warns of optional kernels when it is imported, the other of its own renaming.
_LOGGERS = ("bitsandbytes", "torch.fx._symbolic_trace")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence transformers, compressed-tensors, bitsandbytes and every tqdm bar inside.

    They report to a person at a notebook; here stdout is a command's result and
    stderr its one progress display.  Their errors are exceptions and still arrive.
    """
    logging: Any = untyped_logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    draw: Any = tqdm.__init__
    loggers = [standard_logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]

    def stay_silent(self: Any, *args: Any, **kwargs: Any) -> None:
        draw(self, *args, **{**kwargs, "disable": True})

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(standard_logging.ERROR)
    # compressed-tensors draws bars with tqdm directly and offers no switch.
    tqdm.__init__ = stay_silent
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = draw
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

"""One method by bitsandbytes, through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from exporter.compress.models import load_model
from exporter.compress.recipes import BitsAndBytes

#: transformers' factories are untyped.
_TRANSFORMERS: Any = transformers


def run(work: BitsAndBytes, source: Path, out: Path) -> None:
    """Round the checkpoint in ``source`` while it loads, and save it to ``out``."""
    scheme = _TRANSFORMERS.BitsAndBytesConfig(**work.arguments)
    # Saved before it is run: a forward pass on a CPU rearranges NF4's codes for its kernel.
    load_model(source, quantization_config=scheme, device_map="cpu").save_pretrained(out)

"""A checkpoint of any format that is read, written anew as a plain bfloat16 one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from exporter.checkpoint import open_checkpoint
from exporter.checkpoint.folder import OPTIONAL_FILES, TOKENIZER_FILES
from exporter.reference.model import read_config, without_weights
from exporter.reference.own_reading import fill
from exporter.reference.quiet import quiet_libraries
from manifests.progress import Progress, silent

_GENERATION = "generation_config.json"
#: transformers' factories are untyped.
_TRANSFORMERS: Any = transformers


def convert(checkpoint: Path, out: Path, progress: Progress = silent) -> None:
    """Write the weights of ``checkpoint``, rounded to bfloat16, to the folder ``out``.

    Raises:
        BadInput: the checkpoint cannot be read.
    """
    phase = f"convert {checkpoint.name}"
    progress(phase, 0, 1)
    documents = open_checkpoint(checkpoint).documents
    texts = {name: documents.read(name) for name in (*TOKENIZER_FILES, *OPTIONAL_FILES)}
    model = fill(without_weights(read_config(checkpoint), torch.bfloat16), checkpoint)
    generation = texts.pop(_GENERATION)
    if generation is not None:
        model.generation_config = _TRANSFORMERS.GenerationConfig(**json.loads(generation))
    with quiet_libraries():
        model.save_pretrained(out)
    for name, text in texts.items():
        if text is not None:
            (out / name).write_bytes(text)
    progress(phase, 1, 1)

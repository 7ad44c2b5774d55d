"""Compress a checkpoint with llm-compressor."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from exporter.checkpoint import open_checkpoint
from exporter.checkpoint.folder import OPTIONAL_FILES, TOKENIZER_FILES
from exporter.compress.errors import AlreadyCompressed, GroupDoesNotFit
from exporter.compress.recipes import Recipe
from exporter.reference.quiet import quiet_libraries
from exporter.write.staging import check_output, staged
from manifests.progress import Progress, silent

# Else it logs to stdout while it is imported; stdout is for results.
os.environ["LLM_COMPRESSOR_LOG_DISABLED"] = "true"

from llmcompressor.entrypoints.oneshot import oneshot


def compress(checkpoint: Path, out: Path, recipe: Recipe, progress: Progress = silent) -> None:
    """Write ``checkpoint``, compressed by ``recipe``, to the new folder ``out``.

    The tokenizer's files are copied as they are.

    Raises:
        OutputExists: ``out`` is there already.
        AlreadyCompressed: ``checkpoint`` is not in floats.
        GroupDoesNotFit: the recipe's group does not divide a linear's width.
        BadInput: ``checkpoint`` cannot be read.
    """
    check_output(out, force=False)
    source = open_checkpoint(checkpoint)
    if source.format != "safetensors":
        raise AlreadyCompressed(checkpoint, source.format)
    phase = f"compress {recipe.name}"
    progress(phase, 0, 3)
    with quiet_libraries(), staged(out, force=False) as stage:
        model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype="auto", local_files_only=True
        )
        _check_groups(checkpoint, model, recipe)
        progress(phase, 1, 3)
        # JSON is YAML, which is what llm-compressor reads a recipe as.
        oneshot(model=model, recipe=json.dumps(recipe.document()))
        progress(phase, 2, 3)
        model.save_pretrained(stage, save_compressed=True)
        for name in (*TOKENIZER_FILES, *OPTIONAL_FILES):
            path = source.file(name)
            if path is not None:
                shutil.copyfile(path, stage / name)
    progress(phase, 3, 3)


def _check_groups(checkpoint: Path, model: Any, recipe: Recipe) -> None:
    group = recipe.group_size
    if group is None:
        return
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        compressed = isinstance(module, torch.nn.Linear) and module is not head
        if compressed and module.in_features % group:
            raise GroupDoesNotFit(checkpoint, name, module.in_features, group)

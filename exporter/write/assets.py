"""The bundle's other files: tokenizer, configs, and the page that runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from exporter.checkpoint import Checkpoint
from exporter.checkpoint.folder import OPTIONAL_FILES, TOKENIZER_FILES
from exporter.write import files
from exporter.write.errors import PageNotBuilt
from manifests.bundle import File, TargetEntry, WeightSet


def copy_model_files(
    stage: Path,
    checkpoint: Checkpoint,
    entries: dict[str, TargetEntry],
    weights: dict[str, WeightSet],
) -> list[File]:
    """Copy tokenizer, chat template and configs.

    config.json also tells transformers.js how many shards the conventional graphs have;
    its ``quantization_config`` is left out, since the bundle's weights are other files.
    """
    config: dict[str, Any] = dict(checkpoint.config)
    config["transformers.js_config"] = {
        "use_external_data_format": {
            Path(entry.graph).name: len(weights[entry.weights].shards)
            for entry in entries.values()
            if weights[entry.weights].shards[0] == f"{entry.graph}_data"
        }
    }
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    result = [files.add(stage, "config.json", text.encode())]
    for name in (*TOKENIZER_FILES, *OPTIONAL_FILES):
        document = checkpoint.documents.read(name)
        if document is not None:
            result.append(files.add(stage, name, document))
    return result


def copy_runtime(stage: Path, runtime: Path) -> list[File]:
    """Copy the page's files as they are.

    Raises:
        PageNotBuilt: they were not built.
    """
    if not (runtime / "index.html").is_file():
        raise PageNotBuilt(runtime)
    paths = sorted(path for path in runtime.rglob("*") if path.is_file())
    return [
        files.add(stage, path.relative_to(runtime).as_posix(), path.read_bytes()) for path in paths
    ]

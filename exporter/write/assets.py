"""The bundle's other files: tokenizer, configs, and the page that runs it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from exporter.checkpoint import Checkpoint
from exporter.checkpoint.config import parse_object
from exporter.checkpoint.documents import json_bytes
from exporter.checkpoint.errors import NotACheckpoint
from exporter.checkpoint.folder import OPTIONAL_FILES, TOKENIZER_FILES
from exporter.write import files
from exporter.write.errors import PageNotBuilt
from exporter.write.genai import GENAI_CONFIG, describe_for_genai
from manifests.bundle import File, Model, TargetEntry, WeightSet

CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
_COPIED = (*TOKENIZER_FILES, *OPTIONAL_FILES)
#: What transformers.js calls the dtype of the graph with this name.
_TRANSFORMERS_JS_DTYPES = MappingProxyType({"model_q4.onnx": "q4", "model_quantized.onnx": "q8"})


def copy_model_files(
    stage: Path,
    checkpoint: Checkpoint,
    model: Model,
    entries: dict[str, TargetEntry],
    weights: dict[str, WeightSet],
) -> list[File]:
    """Copy tokenizer, chat template and configs.

    config.json also tells transformers.js what it finds here; its
    ``quantization_config`` is left out, since the bundle's weights are other files.
    genai_config.json tells onnxruntime-genai.

    Raises:
        NotACheckpoint: the chat template is no text.
    """
    config: dict[str, Any] = dict(checkpoint.config)
    config["transformers.js_config"] = _transformers_js(entries, weights)
    result = [
        files.add(stage, "config.json", json_bytes(config)),
        files.add(
            stage, GENAI_CONFIG, json_bytes(describe_for_genai(model, checkpoint.decoder, entries))
        ),
    ]
    documents = {name: checkpoint.documents.read(name) for name in _COPIED}
    settings = parse_object(
        documents[TOKENIZER_CONFIG] or b"{}", checkpoint.path / TOKENIZER_CONFIG
    )
    template = _chat_template(checkpoint.path, settings, documents[CHAT_TEMPLATE])
    if template is not None:
        documents[CHAT_TEMPLATE] = template.encode()
        documents[TOKENIZER_CONFIG] = json_bytes({**settings, "chat_template": template})
    result += [files.add(stage, name, data) for name, data in documents.items() if data is not None]
    return result


def _chat_template(checkpoint: Path, settings: dict[str, Any], file: bytes | None) -> str | None:
    """The template that transformers would take, wherever the checkpoint has it.

    Today's transformers writes a file of its own, older ones a setting, which is the only
    place where transformers.js looks: the bundle has it in both.

    Raises:
        NotACheckpoint: the file is no text.
    """
    if file is not None:
        try:
            return file.decode()
        except UnicodeDecodeError:
            raise NotACheckpoint(checkpoint, f"{CHAT_TEMPLATE} is not UTF-8") from None
    template = settings.get("chat_template")
    if isinstance(template, list):
        objects = [each for each in template if isinstance(each, dict)]
        named = (each.get("template") for each in objects if each.get("name") == "default")
        template = next(named, None)
    return template if isinstance(template, str) else None


def _transformers_js(
    entries: dict[str, TargetEntry], weights: dict[str, WeightSet]
) -> dict[str, Any]:
    """How transformers.js opens the conventional graphs, the first one unless told otherwise.

    It looks for a graph's shards under the graph's own name, so only the graph that the
    shards are named after will do.  Such graphs embed tokens with a kernel that its
    onnxruntime-web has on WebGPU only.
    """
    shards = {
        Path(entry.graph).name: len(weights[entry.weights].shards)
        for entry in entries.values()
        if weights[entry.weights].shards[0] == f"{entry.graph}_data"
        and entry.execution_provider == "webgpu"
    }
    if not shards:
        return {}
    dtype = _TRANSFORMERS_JS_DTYPES[next(iter(shards))]
    return {"device": "webgpu", "dtype": dtype, "use_external_data_format": shards}


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

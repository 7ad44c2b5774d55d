"""The whole export on one screen: open, declare, plan, write, lower, seal."""

from __future__ import annotations

from importlib.metadata import version
from math import prod
from pathlib import Path

import onnx_ir as ir

from exporter.checkpoint import Dense, Packed, open_checkpoint
from exporter.checkpoint.tokenizer import check_tokenizer
from exporter.describe import describe_model
from exporter.graph.skeleton import (
    build_skeleton,
    check_architecture,
    read_layout,
    weight_shapes,
)
from exporter.lower.passes import lower
from exporter.write import files, staging
from exporter.write.assets import copy_model_files, copy_runtime
from exporter.write.shards import CHUNK_SIZE
from exporter.write.weights import by_weight_set, write_weights
from manifests.bundle import MANIFEST_NAME, File, Manifest, TargetEntry, WeightSet
from manifests.errors import BadInput
from manifests.progress import Progress, silent
from targets import Target

#: Positions that a bundle's graphs reach unless told otherwise: the rotary tables grow
#: with them, and so does the largest KV cache that a page can be asked for.
DEFAULT_CONTEXT = 8192
_TOOLS = ("tabwright", "mobius-onnx", "onnx-ir", "onnxscript", "numpy")


class TooLargeForTarget(BadInput):
    """A target's memory cannot hold this model."""

    code = "too-large-for-target"

    def __init__(self, target: Target, needed: int, room: int) -> None:
        super().__init__(
            f"{target.name}: {needed >> 20} MiB of float weights, room for {room >> 20} MiB",
            "leave this target out: the WebGPU targets keep codes in memory",
        )


def export(
    checkpoint_path: Path,
    targets: tuple[Target, ...],
    out: Path,
    *,
    runtime: Path,
    force: bool = False,
    context_length: int | None = None,
    adapter: Path | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Write the bundle ``out`` of the checkpoint at ``checkpoint_path``.

    Args:
        checkpoint_path: a Hugging Face checkpoint folder.
        out: the bundle's folder; it appears whole or not at all.
        targets: what to write graphs for; those with the same weight set share shards.
        runtime: folder of the page's files, which go into the bundle as they are.
        force: replace a bundle that is at ``out`` already.
        context_length: positions that the graphs reach; None for the model's own, at
            most :data:`DEFAULT_CONTEXT`.
        adapter: folder of a PEFT LoRA that is merged into the checkpoint's weights.
        progress: told of every phase longer than a second.

    Raises:
        TabwrightError: a bad checkpoint, or an output in the way; nothing is left behind.
    """
    staging.check_output(out, force=force)
    checkpoint = open_checkpoint(checkpoint_path, adapter)
    config_path = checkpoint.path / "config.json"
    check_architecture(config_path, checkpoint.decoder.model_type)
    check_tokenizer(checkpoint.path / "tokenizer.json")
    own_context = checkpoint.decoder.max_position_embeddings
    context = min(own_context, context_length or DEFAULT_CONTEXT)
    skeletons = {
        dtype: build_skeleton(config_path, checkpoint.config, dtype, context)
        for dtype in dict.fromkeys(target.activation_dtype for target in targets)
    }
    skeleton = next(iter(skeletons.values()))
    selected = checkpoint.select(weight_shapes(skeleton))
    for target in targets:
        _check_fits(selected, target)

    with staging.staged(out, force=force) as stage:
        described: list[File] = []
        weights: dict[str, WeightSet] = {}
        entries: dict[str, TargetEntry] = {}
        for name, members in by_weight_set(targets).items():
            shards, weights[name], store = write_weights(stage, selected, members, progress)
            described += shards
            for target in members:
                path = f"onnx/{target.graph}.onnx"
                ir.save(lower(skeletons[target.activation_dtype], target, store), stage / path)
                described.append(files.describe(stage, path))
                entries[target.name] = _entry(target, path)
        described += copy_model_files(stage, checkpoint, entries, weights)
        described += copy_runtime(stage, runtime)
        paths = {file.path for file in described}
        manifest = Manifest(
            model=describe_model(checkpoint, selected, read_layout(skeleton, context)),
            source=checkpoint.source(progress),
            chunk_size=CHUNK_SIZE,
            files=tuple(sorted(described, key=lambda file: file.path)),
            targets=entries,
            weights=weights,
            tokenizer="tokenizer.json",
            tokenizer_config="tokenizer_config.json",
            chat_template=_present("chat_template.jinja", paths),
            generation_config=_present("generation_config.json", paths),
            tools={name: version(name) for name in _TOOLS},
        )
        (stage / MANIFEST_NAME).write_bytes(manifest.sealed_bytes())
    return manifest


def _check_fits(weights: list[Dense | Packed], target: Target) -> None:
    room = target.max_folded_bytes
    needed = 4 * sum(prod(weight.shape) for weight in weights)
    if room is not None and needed > room:
        raise TooLargeForTarget(target, needed, room)


def _entry(target: Target, graph: str) -> TargetEntry:
    return TargetEntry(
        graph=graph,
        weights=target.weight_set,
        execution_provider=target.execution_provider,
        activation_dtype=target.activation_dtype,
        features=target.features,
        limits=dict(target.limits),
        session_config=dict(target.session_config),
    )


def _present(name: str, paths: set[str]) -> str | None:
    return name if name in paths else None

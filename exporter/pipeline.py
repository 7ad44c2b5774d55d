"""The whole export on one screen: open, declare, plan, write, lower, seal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from exporter.checkpoint import Checkpoint, open_checkpoint
from exporter.checkpoint.tokenizer import open_tokenizer
from exporter.describe import describe_model
from exporter.graph.declared import declare, declare_over
from exporter.graph.skeleton import reached_context
from exporter.lower.interface import describe_states
from exporter.lower.passes import lower
from exporter.lower.resident import can_be_resident
from exporter.needs import least_bytes, needed_limits, weight_bytes
from exporter.optimum.export import optimum_graph
from exporter.self_check import make_self_check
from exporter.write import files, staging
from exporter.write.assets import copy_model_files, copy_runtime
from exporter.write.shards import CHUNK_SIZE
from exporter.write.store import StoredWeights
from exporter.write.weights import by_weight_set, write_weights
from manifests.bundle import MANIFEST_NAME, File, Manifest, TargetEntry, WeightSet
from manifests.errors import BadInput
from manifests.progress import Progress, silent
from manifests.self_check import SELF_CHECK_NAME
from targets import Target

#: Positions that a bundle's graphs reach unless told otherwise: the rotary tables grow
#: with them, and so does the largest KV cache that a page can be asked for.
DEFAULT_CONTEXT = 8192
GraphChoice = Literal["own", "optimum"]
_TOOLS = ("tabwright", "mobius-onnx", "onnx-ir", "onnxruntime", "onnxscript", "numpy")


class TooLargeForTarget(BadInput):
    """A target's memory cannot hold this model."""

    code = "too-large-for-target"

    def __init__(self, target: Target, needed: int, room: int) -> None:
        super().__init__(
            f"{target.name}: {needed >> 20} MiB of weights, room for {room >> 20} MiB",
            "leave this target out: the WebGPU targets keep their weights on the GPU",
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
    graph: GraphChoice = "own",
    progress: Progress = silent,
) -> Manifest:
    """Write the bundle ``out`` of the checkpoint at ``checkpoint_path``.

    Args:
        checkpoint_path: a Hugging Face checkpoint folder, or a GGUF file.
        out: the bundle's folder; it appears whole or not at all.
        targets: what to write graphs for; those with the same weight set share shards.
        runtime: folder of the page's files, which go into the bundle as they are.
        force: replace a bundle that is at ``out`` already.
        context_length: positions that the graphs reach; None for the model's own, at
            most :data:`DEFAULT_CONTEXT`.
        adapter: folder of a PEFT LoRA that is merged into the checkpoint's weights.
        graph: ``own`` for our families' graphs, or the one that the checkpoint came with;
            ``optimum`` has its exporter write one.
        progress: told of every phase longer than a second.

    Raises:
        TabwrightError: a bad checkpoint, or an output in the way; nothing is left behind.
    """
    staging.check_output(out, force=force)
    checkpoint = open_checkpoint(checkpoint_path, adapter)
    tokenizer = open_tokenizer(checkpoint)
    own_context = checkpoint.decoder.max_position_embeddings
    context = min(own_context, context_length or DEFAULT_CONTEXT)
    dtypes = dict.fromkeys(target.activation_dtype for target in targets)
    if graph == "optimum":
        with optimum_graph(checkpoint, progress) as written:
            declared = declare_over(checkpoint, written, dtypes)
    else:
        declared = declare(checkpoint, dtypes, context)
    reached = min(reached_context(skeleton, context) for skeleton in declared.skeletons.values())
    checkpoint = _remark(checkpoint, declared.remarks)
    for target in targets:
        _check_fits(target, least_bytes(target, declared.weights, declared.roles))

    with staging.staged(out, force=force) as stage:
        described: list[File] = []
        weights: dict[str, WeightSet] = {}
        entries: dict[str, TargetEntry] = {}
        for name, members in by_weight_set(targets).items():
            shards, weights[name], store = write_weights(
                stage, declared.weights, declared.roles, members, progress
            )
            described += shards
            for target in members:
                _check_fits(target, weight_bytes(target, weights[name]))
                skeleton = declared.skeletons[target.activation_dtype]
                entry = _write_graphs(stage, skeleton, target, store, weights[name])
                graphs = filter(None, (entry.graph, entry.resident_graph))
                described += [files.describe(stage, path) for path in graphs]
                entries[target.name] = entry
        model = describe_model(checkpoint, declared.weights, reached)
        described += copy_model_files(stage, checkpoint, model, entries, weights)
        described += copy_runtime(stage, runtime)
        self_check = make_self_check(
            stage,
            entries,
            tokenizer,
            vocabulary=model.vocab_size,
            context=model.context_length,
            progress=progress,
        )
        described.append(files.add(stage, SELF_CHECK_NAME, self_check.to_json().encode()))
        paths = {file.path for file in described}
        manifest = Manifest(
            model=model,
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
            self_check=SELF_CHECK_NAME,
        )
        (stage / MANIFEST_NAME).write_bytes(manifest.sealed_bytes())
    return manifest


def _check_fits(target: Target, needed: int) -> None:
    if target.heap_bytes is not None and needed > target.heap_bytes:
        raise TooLargeForTarget(target, needed, target.heap_bytes)


def _remark(checkpoint: Checkpoint, remarks: Iterable[str]) -> Checkpoint:
    return replace(checkpoint, remarks=(*checkpoint.remarks, *remarks))


def _write_graphs(
    stage: Path, skeleton: ir.Model, target: Target, store: StoredWeights, weights: WeightSet
) -> TargetEntry:
    """Write ``target``'s graphs: the resident one too, where model and target can have it."""
    graph, resident = f"onnx/{target.graph}.onnx", None
    ir.save(lower(skeleton, target, store), stage / graph)
    if target.resident_graph is not None and can_be_resident(skeleton):
        resident = f"onnx/{target.resident_graph}.onnx"
        ir.save(lower(skeleton, target, store, "resident"), stage / resident)
    return TargetEntry(
        graph=graph,
        resident_graph=resident,
        weights=target.weight_set,
        execution_provider=target.execution_provider,
        activation_dtype=target.activation_dtype,
        states=describe_states(skeleton),
        features=target.features,
        limits=needed_limits(target, weights),
        session_config=dict(target.session_config),
        weight_bytes=weight_bytes(target, weights),
    )


def _present(name: str, paths: set[str]) -> str | None:
    return name if name in paths else None

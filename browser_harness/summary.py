"""What the bundle is made of, from its manifest alone."""

from __future__ import annotations

from collections import Counter

from manifests.bundle import Manifest
from manifests.report import BundleSummary

#: Bytes of a shard that are no tensor's of the checkpoint: zero points of symmetric
#: weights, all alike, for kernels that want them written out, and what aligns tensors.
_FILLING = "default zero points, padding"


def bytes_by_kind(manifest: Manifest) -> dict[str, int]:
    """Bytes of the bundle's files: tensors by role, the rest by what it is for.

    Tensors that share bytes are counted once, under the role that comes first.  What
    else a shard holds is :data:`_FILLING`.
    """
    sizes: Counter[str] = Counter()
    counted: set[tuple[str, int]] = set()
    shards: set[str] = set()
    for weights in manifest.weights.values():
        shards.update(weights.shards)
        for tensor in weights.tensors:
            for _, part in tensor.parts():
                if (part.file, part.offset) not in counted:
                    counted.add((part.file, part.offset))
                    sizes[tensor.role] += part.length
    in_tensors = sizes.total()
    in_shards = sum(file.size for file in manifest.files if file.path in shards)
    sizes[_FILLING] = in_shards - in_tensors
    graphs = {
        path
        for target in manifest.targets.values()
        for path in (target.graph, target.resident_graph)
    }
    texts = {manifest.tokenizer, manifest.tokenizer_config, manifest.chat_template}
    for file in manifest.files:
        if file.path in graphs:
            sizes["graph"] += file.size
        elif file.path in texts:
            sizes["tokenizer"] += file.size
        elif file.path not in shards:
            sizes["runtime" if file.path.startswith("runtime/") else "page"] += file.size
    return {kind: size for kind, size in sizes.items() if size > 0}


def target_bytes(manifest: Manifest, name: str) -> int:
    """Bytes that a load of one target verifies: all but types and the shards of other weights.

    The page's ``neededFiles`` is the same rule, other targets' small graphs included.
    """
    own = set(manifest.weights[manifest.targets[name].weights].shards)
    others = {shard for weights in manifest.weights.values() for shard in weights.shards} - own
    return sum(
        file.size
        for file in manifest.files
        if file.path not in others and not file.path.endswith(".d.ts")
    )


def summarise(manifest: Manifest) -> BundleSummary:
    """The bundle as the report tells it."""
    return BundleSummary(
        name=manifest.model.name,
        architecture=manifest.model.architecture,
        parameters=manifest.model.parameters,
        seal=manifest.seal,
        source_digest=manifest.source.digest,
        bytes=sum(file.size for file in manifest.files),
        bytes_by_kind=bytes_by_kind(manifest),
    )

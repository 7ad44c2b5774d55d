"""Will it fit?  What a target needs, from its manifest, against what a device has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from browser_harness.judge.units import show
from browser_harness.roofline import work_of
from manifests.bundle import Manifest, TargetEntry, Tensor
from manifests.work import Fit, Prediction, TargetFit

GIB = 1 << 30

#: The WASM heap of a page that loaded a WebGPU target, none of whose weights stay in it.
_RUNTIME_HEAP = 50 << 20
#: Positions that the runtime feeds at once, what its cache on a GPU begins with and what it
#: grows by at most (page/runtime/open_loop.ts, resident_loop.ts); and by how many positions a
#: CPU's cache grows (heap_cache.ts).
_CHUNK: MappingProxyType[str, int] = MappingProxyType({"gpu": 256, "wasm": 128})
_FIRST_POSITIONS = 256
_HEAP_STEP = 128
_CACHE_GROWTH = 64 << 20
#: wasm32 addresses no more.
_WASM_MOST = 4 * GIB
#: What one page may take of a device's memory: a rule, not a measurement.
PAGE_SHARE = 0.5


#: Memory of the whole device in bytes, by what ``navigator.deviceMemory`` calls it; what a GPU
#: has of its own is not told to pages.
PROFILES: MappingProxyType[str, int] = MappingProxyType(
    {f"{size}gb": size * GIB for size in (2, 4, 8, 16, 32)}
)


def predict(manifest: Manifest, target: str, context: int) -> Prediction:
    """What ``target`` holds once it has seen a text of ``context`` positions.

    On a GPU the codes lie as they are stored, scales in the width of the activations.  The cache
    comes in whole steps of its first size where a step writes it in place; in the conventional
    graph a step's old one and new one are there together.  On a CPU it is written in place, and
    counts once; but where the page's kernel does not attend (Gemma 2, graphs of optimum, what
    ``model.info.notes`` says) both are there, which no manifest tells.  The heap itself grows by
    up to 96 MiB beyond what is needed.
    """
    entry = manifest.targets[target]
    rows = manifest.weights[entry.weights].tensors
    work = work_of(manifest, target)
    position, fixed = work.state_bytes_per_position, work.state_bytes
    widest = max((max(row.shape) for row in rows if len(row.shape) > 1 and _inner(row)), default=1)
    logits = 4 * manifest.model.vocab_size
    states = 2 * (context * position + fixed)
    if entry.execution_provider == "wasm":
        states = -(-context // _HEAP_STEP) * _HEAP_STEP * position + 2 * fixed
    elif entry.resident_graph:
        states = _capacity(context, position, manifest.model.context_length) * position + fixed
    if entry.execution_provider == "webgpu":
        rows_at_once = min(context, _CHUNK["gpu"])
        return Prediction(
            place="gpu",
            context=context,
            weights=sum(size for row in rows for size in gpu_sizes(row, entry)),
            states=states,
            activations=2 * rows_at_once * widest * _width(entry) + logits,
            runtime=0,
        )
    return Prediction(
        place="wasm",
        context=context,
        weights=sum(row.heap_bytes for row in rows),
        states=states,
        activations=2 * min(context, _CHUNK["wasm"]) * widest * 4 + logits,
        runtime=_RUNTIME_HEAP,
    )


def gpu_sizes(row: Tensor, entry: TargetEntry) -> Iterator[int]:
    """Bytes of each buffer that a tensor becomes on a GPU."""
    for name, part in row.parts():
        stored = {"scales": row.scale_dtype, "values": row.value_dtype}.get(name)
        widened = stored == "float16" and entry.activation_dtype == "float32"
        yield -(-part.length * (2 if widened else 1) // 16) * 16


def objections(need: Prediction, memory: int) -> tuple[str, ...]:
    """What keeps it from fitting a device of ``memory`` bytes; none where it fits."""
    found = []
    most = int(PAGE_SHARE * memory)
    if need.total > most:
        found.append(f"needs {_size(need.total)}, a page gets {_size(most)}")
    if need.place == "wasm" and need.total > _WASM_MOST:
        found.append(f"needs a WASM heap of {_size(need.total)}, there are {_size(_WASM_MOST)}")
    return tuple(found)


def fit(manifest: Manifest, names: Sequence[str], contexts: Sequence[int]) -> Fit:
    """Predictions of ``names`` at each of ``contexts``, and what keeps which device from them."""
    return Fit(
        bundle=manifest.model.name,
        targets={
            name: tuple(
                TargetFit(
                    need=need,
                    limits=manifest.targets[name].limits,
                    objections={
                        profile: told
                        for profile, memory in PROFILES.items()
                        if (told := objections(need, memory))
                    },
                )
                for need in (predict(manifest, name, context) for context in contexts)
            )
            for name in names
        },
    )


def render(found: Fit) -> str:
    """A paragraph per target: what it needs, and the smallest device that it fits."""
    lines = [f"{found.bundle}: a page gets {PAGE_SHARE:.0%} of a device's memory here"]
    for name, each in found.targets.items():
        lines += ["", name]
        lines += [f"  {forecast(at.need)}" for at in each]
        limits = ", ".join(f"{limit} {value:,}" for limit, value in each[0].limits.items())
        lines += [f"  asks of the adapter: {limits}"] if limits else []
    return "\n".join(lines)


def forecast(need: Prediction) -> str:
    """What is needed, and the smallest device that has it, in one line."""
    where = {"gpu": "in GPU buffers", "wasm": "in the WASM heap"}[need.place]
    parts = f"weights {_size(need.weights)}, cache {_size(need.states)}"
    rest = need.activations + need.runtime
    fits = [profile for profile, memory in PROFILES.items() if not objections(need, memory)]
    told = f"fits from {fits[0]} on" if fits else objections(need, max(PROFILES.values()))[0]
    return (
        f"about {_size(need.total)} {where} at {need.context:,} positions "
        f"({parts}, other {_size(rest)}): {told}"
    )


def _capacity(context: int, position: int, most: int) -> int:
    """Positions of the GPU's cache for a text whose length is known when it begins."""
    step = min(_FIRST_POSITIONS, max(1, _CACHE_GROWTH // max(position, 1)))
    return min(most, -(-context // step) * step)


def _inner(row: Tensor) -> bool:
    """Whether a matrix is neither head nor embedding: their rows are the vocabulary."""
    return row.role == "linear"


def _width(entry: TargetEntry) -> int:
    return 2 if entry.activation_dtype == "float16" else 4


def _size(value: float) -> str:
    return show(value, "bytes")

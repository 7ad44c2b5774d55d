"""A bundle in native onnxruntime and onnxruntime-genai: what does the browser cost?

Each engine is timed in a process of its own, so that its memory is its own: this file is
that program.  Both are given the same tokens as PyTorch, by id.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from exporter.reference.errors import NativeFailed
from manifests.base import Schema
from manifests.bundle import Manifest, TargetEntry, read_manifest
from manifests.progress import Progress
from manifests.reference import Engine, NativeSpeed, PrefillSpeed, Speed

_DTYPES: MappingProxyType[str, type[np.generic]] = MappingProxyType(
    {"float32": np.float32, "float16": np.float16}
)
_PACKAGES: MappingProxyType[Engine, str] = MappingProxyType(
    {"onnxruntime": "onnxruntime", "onnxruntime-genai": "onnxruntime_genai"}
)


class Decoder(Protocol):
    """Greedy tokens, one text at a time."""

    def start(self, ids: tuple[int, ...]) -> int:
        """The token after the text ``ids``, which takes the place of the text before."""
        ...

    def next(self) -> int:
        """The token after the last one."""
        ...


class OrtDecoder:
    """A target's conventional graph in onnxruntime, on the CPU."""

    def __init__(self, bundle: Path, entry: TargetEntry, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        for key, value in entry.session_config.items():
            options.add_session_config_entry(key, value)
        self._session = ort.InferenceSession(
            bundle / entry.graph, options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {state.output: state.input for state in entry.states}
        axes = {"batch_size": 1, "past_sequence_length": 0}
        self._empty: dict[str, NDArray[np.generic]] = {
            state.input: np.zeros(
                [axis if isinstance(axis, int) else axes[axis] for axis in state.shape],
                _DTYPES[state.dtype],
            )
            for state in entry.states
        }
        self._last = 0
        self.reset()

    def start(self, ids: tuple[int, ...]) -> int:
        """See :class:`Decoder`."""
        self.reset()
        return self._step(ids)

    def next(self) -> int:
        """See :class:`Decoder`."""
        return self._step((self._last,))

    def reset(self) -> None:
        """Forget the text that was fed."""
        self._states: dict[str, NDArray[np.generic]] = dict(self._empty)
        self._past = 0

    def _step(self, ids: tuple[int, ...]) -> int:
        self._last = int(self.logits(ids, keep=1)[-1].argmax())
        return self._last

    def logits(self, ids: tuple[int, ...], *, keep: int) -> NDArray[np.float32]:
        """Feed ``ids``; logits float32 [kept, vocabulary] of the last ``keep``, 0 for all."""
        self._past += len(ids)
        feeds: dict[str, NDArray[np.generic]] = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, self._past), np.int64),
            "num_logits_to_keep": np.array(keep, np.int64),
            **self._states,
        }
        logits, *states = self._session.run(["logits", *self._inputs], feeds)
        self._states = dict(zip(self._inputs.values(), states, strict=True))
        return cast("NDArray[np.float32]", logits[0].astype(np.float32))


class GenaiDecoder:
    """The bundle's genai_config.json, opened by onnxruntime-genai on the CPU."""

    def __init__(self, bundle: Path, entry: TargetEntry, threads: int) -> None:
        import onnxruntime_genai as genai  # noqa: PLC0415 - an extra

        self._genai: Any = genai
        config = genai.Config(str(bundle))
        session = {"intra_op_num_threads": threads}
        decoder = {"filename": entry.graph, "session_options": session}
        config.overlay(json.dumps({"model": {"decoder": decoder}}))
        self._model = genai.Model(config)
        self._generator: Any = None
        self._last = 0

    def start(self, ids: tuple[int, ...]) -> int:
        """See :class:`Decoder`."""
        parameters = self._genai.GeneratorParams(self._model)
        self._generator = self._genai.Generator(self._model, parameters)
        self._generator.append_tokens(list(ids))
        return self.next()

    def next(self) -> int:
        """See :class:`Decoder`."""
        if self._generator.is_done():
            # After a token that ends a text it goes on only when given that token.
            self._generator.append_tokens([self._last])
        self._generator.generate_next_token()
        self._last = int(self._generator.get_next_tokens()[0])
        return self._last


_DECODERS: MappingProxyType[Engine, type[OrtDecoder | GenaiDecoder]] = MappingProxyType(
    {"onnxruntime": OrtDecoder, "onnxruntime-genai": GenaiDecoder}
)


class Job(Schema):
    """What one process is to time; ``prompts`` are ids, and decoding follows the first."""

    bundle: str
    engine: Engine
    target: str
    threads: int
    prompts: tuple[tuple[int, ...], ...]
    decode_tokens: int
    repetitions: int


class Timed(Schema):
    """What it took: milliseconds, bytes of the process at its largest, and the tokens made."""

    load_ms: float
    prefill_ms: tuple[tuple[float, ...], ...]
    decode_ms: tuple[float, ...]
    peak_bytes: int
    tokens: tuple[int, ...]


def native_target(manifest: Manifest) -> str:
    """The target whose graph suits a native CPU best: the one for the CPU, else the first."""
    entries = manifest.targets
    return min(entries, key=lambda name: entries[name].execution_provider != "wasm")


def measure_native(
    bundle: Path,
    prompts: tuple[tuple[int, ...], ...],
    *,
    threads: int,
    decode_tokens: int,
    repetitions: int,
    progress: Progress,
) -> tuple[NativeSpeed, ...]:
    """Time every engine that is installed.

    Args:
        bundle: a finished bundle.
        prompts: ids of texts of different lengths; ``decode_tokens`` follow the first.
        threads: of each engine.
        decode_tokens: timed tokens after the first, per round.
        repetitions: timed rounds, after one that warms up.
        progress: told of each engine.

    Raises:
        NativeFailed: an engine does not run this bundle.
    """
    manifest = read_manifest(bundle)
    target = native_target(manifest)
    engines = [engine for engine, module in _PACKAGES.items() if find_spec(module)]
    found = []
    for done, engine in enumerate(engines):
        progress("time the bundle natively", done, len(engines))
        job = Job(
            bundle=str(bundle),
            engine=engine,
            target=target,
            threads=threads,
            prompts=prompts,
            decode_tokens=decode_tokens,
            repetitions=repetitions,
        )
        timed = time_in_a_process(job)
        prefill = zip(prompts, timed.prefill_ms, strict=True)
        speed = Speed(
            dtype=manifest.targets[target].activation_dtype,
            load_ms=timed.load_ms,
            prefill=tuple(PrefillSpeed(prompt_tokens=len(ids), ms=ms) for ids, ms in prefill),
            decode_ms=timed.decode_ms,
            peak_bytes=timed.peak_bytes,
            peak_kind="process-rss",
        )
        found.append(
            NativeSpeed(
                engine=engine,
                version=engine_version(engine),
                target=target,
                threads=threads,
                speed=speed,
            )
        )
    progress("time the bundle natively", len(engines), len(engines))
    return tuple(found)


def engine_version(engine: Engine) -> str:
    """The installed version; onnxruntime has several packages, one per provider."""
    try:
        return version(engine)
    except PackageNotFoundError:
        return str(ort.__version__)


def time_in_a_process(job: Job) -> Timed:
    """Run ``job`` in a process of its own.

    Raises:
        NativeFailed: it did not come to its end.
    """
    done = subprocess.run(
        [sys.executable, "-m", "exporter.reference.native"],
        input=job.to_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NativeFailed(Path(job.bundle), job.engine, last)
    return Timed.model_validate_json(done.stdout.splitlines()[-1])


def run(job: Job) -> Timed:
    """Run ``job`` in this process; the first round warms up and is not kept."""
    bundle = Path(job.bundle)
    entry = read_manifest(bundle).targets[job.target]
    started = time.perf_counter()
    decoder: Decoder = _DECODERS[job.engine](bundle, entry, job.threads)
    load_ms = (time.perf_counter() - started) * 1e3
    prefill: list[list[float]] = [[] for _ in job.prompts]
    decode: list[float] = []
    tokens: list[int] = []
    for turn in range(job.repetitions + 1):
        for number, prompt in enumerate(job.prompts):
            at, made = [time.perf_counter()], [decoder.start(prompt)]
            at.append(time.perf_counter())
            for _ in range(job.decode_tokens if number == 0 else 0):
                made.append(decoder.next())
                at.append(time.perf_counter())
            steps = [(after - before) * 1e3 for before, after in pairwise(at)]
            if turn:
                prefill[number].append(steps[0])
                decode += steps[1:]
            if number == 0:
                tokens = made
    return Timed(
        load_ms=load_ms,
        prefill_ms=tuple(tuple(ms) for ms in prefill),
        decode_ms=tuple(decode),
        peak_bytes=_peak_rss(),
        tokens=tuple(tokens),
    )


def _peak_rss() -> int:
    """The highest resident set of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux's getrusage would begin with the peak of the process that started this one.
        [kib] = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text("utf-8"))
        return int(kib) * 1024
    import resource  # noqa: PLC0415 - Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.stdout.write(run(Job.model_validate_json(sys.stdin.read())).model_dump_json() + "\n")

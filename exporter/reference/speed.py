"""PyTorch's own speed with a checkpoint, and the memory it took."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psutil
import torch

from exporter.reference.model import DeviceName
from manifests.progress import Progress
from manifests.reference import PrefillSpeed

_SAMPLE_SECONDS = 0.01


class PeakMemory:
    """Watches memory while its block runs; ``bytes`` holds the peak afterwards.

    On CUDA it is torch's own count of allocated bytes.  On a CPU it is the
    process's resident set, looked at every 10 ms: the kernel's own high-water mark
    would report whatever larger job the process did before.
    """

    def __init__(self, device: DeviceName) -> None:
        self.bytes = 0
        self._device = device
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._device == "cuda":
            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self._stop.set()
            self._watcher.join()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._process.memory_info().rss)
            if self._stop.wait(_SAMPLE_SECONDS):
                return


@dataclass(frozen=True)
class Pace:
    """Prefill by prompt length, and milliseconds of every decoded token after the first."""

    prefill: tuple[PrefillSpeed, ...]
    decode_ms: tuple[float, ...]


def prompts_of(ids: tuple[int, ...], lengths: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """``ids``, repeated as often as needed: speed does not depend on what is said."""
    return tuple((ids * (length // len(ids) + 1))[:length] for length in lengths)


@torch.inference_mode()
def measure_pace(
    model: Any,
    prompts: tuple[tuple[int, ...], ...],
    *,
    decode_tokens: int,
    repetitions: int,
    progress: Progress,
) -> Pace:
    """Time prefill of each of ``prompts`` and decoding after the first of them.

    Prompts take turns, so that a slow moment of the machine falls on all of them; the
    first round warms up and is not kept.
    """
    prefill: list[list[float]] = [[] for _ in prompts]
    decode: list[float] = []
    rounds = repetitions + 1
    for turn in range(rounds):
        progress("time PyTorch", turn, rounds)
        for number, prompt in enumerate(prompts):
            wanted = decode_tokens if number == 0 else 0
            first, later = _generate(model, prompt, wanted)
            if turn:
                prefill[number].append(first)
                decode.extend(later)
    progress("time PyTorch", rounds, rounds)
    return Pace(
        prefill=tuple(
            PrefillSpeed(prompt_tokens=len(prompt), ms=tuple(ms))
            for prompt, ms in zip(prompts, prefill, strict=True)
        ),
        decode_ms=tuple(decode),
    )


def _generate(model: Any, prompt: tuple[int, ...], tokens: int) -> tuple[float, list[float]]:
    """Milliseconds to the first token, and of each of ``tokens`` after it."""
    times: list[float] = []
    fed, cache = list(prompt), None
    for _ in range(tokens + 1):
        started = time.perf_counter()
        ids = torch.tensor([fed], device=model.device)
        step = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        # Reading the token waits for the device: without it CUDA would time its queue.
        fed, cache = [int(step.logits[0, -1].argmax())], step.past_key_values
        times.append((time.perf_counter() - started) * 1e3)
    return times[0], times[1:]

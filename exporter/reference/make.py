"""Make ``reference.json``: PyTorch's answers and speed for a checkpoint and its bundle."""

from __future__ import annotations

import gc
import hashlib
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

from exporter.checkpoint import open_checkpoint
from exporter.reference.answers import Logits, compare, continue_greedily, nll, score
from exporter.reference.errors import CheckpointMismatch
from exporter.reference.model import (
    DeviceChoice,
    DeviceName,
    memory_errors_named,
)
from exporter.reference.models import Models, models_of
from exporter.reference.native import measure_native
from exporter.reference.original import Uncompressed
from exporter.reference.output import check_output, logits_path, write_reference
from exporter.reference.prompts import Prompts, open_tokenizer, tokenise
from exporter.reference.questions import ask
from exporter.reference.speed import PeakMemory, measure_pace, prompts_of
from exporter.reference.suite import SUITE, Suite
from exporter.write.verify import verify_bundle
from manifests.bundle import Manifest
from manifests.machine import cpu_name
from manifests.progress import Progress, silent
from manifests.questions import Answers as QuestionAnswers
from manifests.questions import Questions
from manifests.reference import Answers, Device, Greedy, NativeSpeed, Original, Reference, Speed

PROMPT_LENGTHS = (16, 64, 256)
_PACKAGES = ("torch", "transformers", "compressed-tensors", "onnxruntime", "numpy")


def make_reference(
    checkpoint: Path,
    bundle: Path,
    out: Path,
    *,
    device: DeviceChoice = "auto",
    adapter: Path | None = None,
    suite: Path = SUITE,
    tasks: Path | None = None,
    original: Path | None = None,
    repetitions: int = 3,
    decode_tokens: int = 32,
    threads: int | None = None,
    native: bool = False,
    progress: Progress = silent,
) -> Reference:
    """Run the checkpoint and each of the bundle's weight sets in PyTorch.

    Speed is taken with the checkpoint in its own dtype on CUDA and in float32 on a
    CPU; answers are always float32.  Writes ``out`` and, beside it with the suffix
    ``.safetensors``, the logits; ``out`` is renamed into place last, and takes the place of
    an older reference only.

    Args:
        checkpoint: the folder or file that ``bundle`` was exported from.
        bundle: a finished bundle.
        out: where reference.json goes; its name ends in ``.json``.
        device: ``auto`` takes CUDA where torch finds it.
        adapter: folder of the PEFT adapter that was merged into the checkpoint.
        suite: the texts, see :class:`exporter.reference.suite.Suite`.
        tasks: a file of questions with choices that the checkpoint is asked, see
            :mod:`manifests.questions`.
        original: the uncompressed model; what compression cost is told then.
        repetitions: timed rounds, after one that warms up.
        decode_tokens: timed tokens after the first, per round.
        threads: of PyTorch on a CPU and of the native engines; None for PyTorch's own choice.
        native: also time the bundle in onnxruntime and onnxruntime-genai.
        progress: told of each phase.

    Raises:
        ReferenceMisplaced: something else is at ``out``, or where the logits go.
        CheckpointMismatch: the bundle was made from another checkpoint.
        LedgerMismatch: the bundle contradicts itself.
        OriginalMismatch: ``original`` speaks other tokens.
        NoCuda, OutOfMemory, NativeFailed: this machine cannot do it.
        QuestionInvalid: ``tasks`` holds a row that is no question.
        BadInput: the checkpoint, the bundle or the suite is damaged or cannot be read.
    """
    check_output(out)
    if threads is not None:
        torch.set_num_threads(threads)
    texts = Suite.load(suite)
    questions = Questions.load(tasks) if tasks else None
    manifest = verify_bundle(bundle, progress)
    opened = open_checkpoint(checkpoint, adapter)
    source = opened.source(progress)
    if source.digest != manifest.source.digest:
        raise CheckpointMismatch(checkpoint, bundle)
    models = models_of(checkpoint, opened, device, adapter)
    where = models.device
    context = manifest.model.context_length
    prompts = tokenise(checkpoint, texts, context)
    uncompressed = None
    if original is not None:
        uncompressed = Uncompressed.open(original, prompts, texts, manifest.model, device)
    told: Original | None = None
    answers: dict[str, Answers] = {}
    logits: Logits = {}
    with memory_errors_named(checkpoint, where):
        speed, expected, answered = _run_checkpoint(
            models,
            checkpoint,
            prompts,
            questions,
            context,
            repetitions=repetitions,
            decode_tokens=decode_tokens,
            progress=progress,
        )
        for name, weights in sorted(manifest.weights.items()):
            model = models.bundle(bundle, weights)
            measured = score(model, prompts.scored, f"score {name} in PyTorch", progress)
            answers[name] = Answers(
                weights_digest=weights.digest,
                logits={text: f"{name}.{text}" for text in measured},
                greedy=_continue(model, prompts, manifest, f"continue {name} in PyTorch", progress),
                export_loss=compare(prompts.scored, expected, measured),
                nll={text.name: nll(text, measured[text.name]) for text in prompts.scored},
            )
            logits |= {f"{name}.{text}": values for text, values in measured.items()}
            del model
            _release_memory(where)
        if uncompressed is not None:
            told = uncompressed.answer(prompts, expected, questions, context, progress)
            _release_memory(where)
    beside: tuple[NativeSpeed, ...] = ()
    if native:
        lengths = _lengths(manifest.model.context_length, decode_tokens)
        beside = measure_native(
            bundle,
            prompts_of(prompts.scored[0].ids, lengths),
            threads=torch.get_num_threads(),
            decode_tokens=decode_tokens,
            repetitions=repetitions,
            progress=progress,
        )
    reference = Reference(
        source_digest=source.digest,
        tokenizer_digest=hashlib.sha256(opened.documents.read("tokenizer.json") or b"").hexdigest(),
        checkpoint_read_by=models.read_by,
        device=_describe(where),
        tokens=prompts.tokens,
        chats=prompts.chats,
        scored=prompts.scored,
        answers=answers,
        logits_file=logits_path(out).name,
        logits_sha256="0" * 64,
        speed=speed,
        questions=answered,
        original=told,
        native=beside,
    )
    return write_reference(reference, logits, out)


def _run_checkpoint(
    models: Models,
    checkpoint: Path,
    prompts: Prompts,
    questions: Questions | None,
    context: int,
    *,
    repetitions: int,
    decode_tokens: int,
    progress: Progress,
) -> tuple[Speed, Logits, QuestionAnswers | None]:
    """Time the checkpoint in the dtype that suits the device, ask and score it in float32."""
    device = models.device
    # CPUs emulate the 16-bit dtypes; float32 is what they are quickest in.
    dtype = models.dtype if device == "cuda" else torch.float32
    progress("load checkpoint in PyTorch", 0, 1)
    with PeakMemory(device) as peak:
        started = time.perf_counter()
        model = models.checkpoint(dtype)
        load_ms = (time.perf_counter() - started) * 1e3
        progress("load checkpoint in PyTorch", 1, 1)
        pace = measure_pace(
            model,
            prompts_of(prompts.scored[0].ids, _lengths(context, decode_tokens)),
            decode_tokens=decode_tokens,
            repetitions=repetitions,
            progress=progress,
        )
    speed = Speed(
        dtype=str(dtype).removeprefix("torch."),
        load_ms=load_ms,
        prefill=pace.prefill,
        decode_ms=pace.decode_ms,
        peak_bytes=peak.bytes,
        peak_kind="cuda-allocated" if device == "cuda" else "process-rss",
    )
    if dtype is not torch.float32:
        # Widening a model that was dequantised to 16 bits would keep their rounding.
        del model
        _release_memory(device)
        model = models.checkpoint(torch.float32)
    logits = score(model, prompts.scored, "score checkpoint in PyTorch", progress)
    answered = None
    if questions is not None:
        answered = ask(model, open_tokenizer(checkpoint), questions, context, progress)
    del model
    _release_memory(device)
    return speed, logits, answered


def _lengths(context: int, decode_tokens: int) -> tuple[int, ...]:
    return tuple(n for n in PROMPT_LENGTHS if n + decode_tokens <= context)


def _release_memory(device: DeviceName) -> None:
    """Give a dropped model's memory back: its hooks make cycles that only gc breaks."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def _continue(
    model: object, prompts: Prompts, manifest: Manifest, phase: str, progress: Progress
) -> tuple[Greedy, ...]:
    found: list[Greedy] = []
    for done, prompt in enumerate(prompts.greedy):
        progress(phase, done, len(prompts.greedy))
        ends = manifest.model.eos_token_ids
        found.append(continue_greedily(model, prompt, ends))
    progress(phase, len(found), len(found))
    return tuple(found)


def _describe(device: DeviceName) -> Device:
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_name()
    versions = {package: version(package) for package in _PACKAGES}
    versions["python"] = platform.python_version()
    if device == "cuda":
        versions["cuda"] = str(torch.version.cuda)
    return Device(device=device, name=name, threads=torch.get_num_threads(), versions=versions)

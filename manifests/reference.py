"""``reference.json``: PyTorch's answers and speed, written once, judged anywhere.

Beside it lies a safetensors file with the full logits, named and digested here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manifests.agreement import Agreement
from manifests.base import Real, Schema
from manifests.bundle import Sha256
from manifests.questions import Answers as QuestionAnswers

Engine = Literal["onnxruntime", "onnxruntime-genai"]
ReadBy = Literal["transformers", "tabwright", "onnxruntime"]


class TokenCase(Schema):
    """A text and the token ids that transformers' tokenizer gives it.

    Special tokens that the tokenizer adds by itself (a BOS) are among them.  ``decoded`` is
    what it makes of the ids again, special tokens left out: not always ``text``.
    """

    name: str
    language: str
    text: str
    ids: tuple[int, ...]
    decoded: str | None = None


class ChatCase(Schema):
    """A conversation, and transformers' rendering and ids of it.

    It is rendered up to where the model's reply begins (``add_generation_prompt``);
    ``ids`` are those of ``rendered`` with no special token added.
    """

    name: str
    language: str
    messages: tuple[dict[str, str], ...]
    rendered: str
    ids: tuple[int, ...]


class ScoredText(Schema):
    """A text to be teacher-forced: position i predicts ``ids[i + 1]``."""

    name: str
    language: str
    ids: tuple[int, ...]


class Greedy(Schema):
    """A greedy continuation; it ends early with an end-of-sequence token, which is included.

    ``margins[i]`` is the logit of token i less that of ``runners_up[i]``, the second
    most likely token, so that a divergence can be told from a near-tie.
    """

    name: str
    language: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    runners_up: tuple[int, ...]
    margins: tuple[float, ...]


class Answers(Schema):
    """What one set of weights answers in PyTorch fp32.

    ``logits`` maps a scored text's name to the tensor, float32 [positions,
    vocabulary], in the reference's logits file: all of them, for a divergence needs every
    candidate.  ``nll`` holds, by the same names, the nats of each token after the first.
    """

    weights_digest: Sha256
    logits: dict[str, str]
    greedy: tuple[Greedy, ...]
    export_loss: Agreement
    nll: dict[str, tuple[Real, ...]] = Field(default_factory=dict)


class Original(Schema):
    """What the uncompressed model answers in PyTorch fp32.

    ``compression_loss`` compares it with the checkpoint over the scored texts;
    ``questions`` are the reference's, answered by it.
    """

    digest: Sha256
    compression_loss: Agreement
    questions: QuestionAnswers | None = None


class Device(Schema):
    """Where and with what the reference was made."""

    device: Literal["cpu", "cuda"]
    name: str
    threads: int
    versions: dict[str, str]


class PrefillSpeed(Schema):
    """Milliseconds to the first token, one value per repetition, warm-up left out."""

    prompt_tokens: int
    ms: tuple[float, ...]


class Speed(Schema):
    """PyTorch's own speed with the checkpoint, in ``dtype``.

    ``decode_ms`` holds one value per token after the first, every repetition's.
    ``peak_bytes`` is CUDA's peak allocation, or the process's peak RSS on a CPU.
    """

    dtype: str
    load_ms: float
    prefill: tuple[PrefillSpeed, ...]
    decode_ms: tuple[float, ...]
    peak_bytes: int
    peak_kind: Literal["cuda-allocated", "process-rss"]


class NativeSpeed(Schema):
    """The speed of the bundle outside a browser, on this machine's CPU.

    ``target`` is the bundle's target whose conventional graph ran.
    """

    engine: Engine
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z._+-]{1,64}$")]
    target: str
    threads: int
    speed: Speed


class Reference(Schema):
    """The whole file.

    ``checkpoint_read_by`` says whose code turned the checkpoint into floats.  Where it is
    tabwright's own (transformers lacks the library that wrote the format), the export
    loss compares our own reading with the bundle, and would not see a misreading.
    Where it is onnxruntime, the checkpoint came with an ONNX graph, and that graph ran in
    PyTorch's place: all answers and times are onnxruntime's on a CPU.
    ``questions`` are answered with the checkpoint; ``original`` is there where the
    uncompressed model was at hand.
    ``native`` is the bundle in other engines, in prompts of the lengths of ``speed``.
    """

    format: Literal["tabwright-reference"] = "tabwright-reference"
    version: Literal[1] = 1
    source_digest: Sha256
    tokenizer_digest: Sha256
    checkpoint_read_by: ReadBy = "transformers"
    device: Device
    tokens: tuple[TokenCase, ...]
    chats: tuple[ChatCase, ...]
    scored: tuple[ScoredText, ...]
    answers: dict[str, Answers]
    logits_file: str
    logits_sha256: Sha256
    speed: Speed
    questions: QuestionAnswers | None = None
    original: Original | None = None
    native: tuple[NativeSpeed, ...] = ()

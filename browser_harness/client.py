"""The measuring page's methods, typed.  ``manifests/page.py`` says what they carry."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from browser_harness.tab import PageFailure, Tab
from manifests.base import Schema
from manifests.page import (
    GenerateResult,
    LoadRequest,
    LoadResult,
    LogitsBlock,
    PageMemory,
    TokenChance,
)
from manifests.work import Bandwidth, GpuBuffers, GpuPasses

Answer = TypeVar("Answer")

OBJECT = "tabwrightMeasure"
_CLOSE_SECONDS = 30.0
#: As many as a call that is cut into pieces feeds at once.
_TOKENS_PER_CALL = 16
_MEMORY_SECONDS = 30.0


class PageContractBroken(PageFailure):
    """The page answered with something that it must not answer."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"page-contract: {OBJECT}.{method} answered badly: {reason}", method)


class Rendered(Schema):
    """A conversation as the page's template renders it, and its token ids."""

    rendered: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Logits of consecutive positions: float32 [rows, vocabulary], from row ``start``."""

    start: int
    logits: NDArray[np.float32]


class MeasurePage:
    """The page behind a tab.  Every method raises as :class:`~browser_harness.tab.Tab`."""

    def __init__(self, tab: Tab, *, call_seconds: float) -> None:
        self.tab = tab
        self.call_seconds = call_seconds

    async def load(self, request: LoadRequest, *, seconds: float) -> LoadResult:
        """Load a target; the page may hold one at a time."""
        answer = await self._ask(
            "load", request.model_dump(mode="json"), doing=f"loading {request.target}", s=seconds
        )
        return _parse(LoadResult, answer, "load")

    async def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of each text, without special tokens added around it."""
        answer = await self._ask("tokenize", list(texts), doing="tokenising")
        found = _parse(tuple[tuple[int, ...], ...], answer, "tokenize")
        _check_count("tokenize", len(found), len(texts))
        return list(found)

    async def detokenize(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each, special tokens left out."""
        answer = await self._ask("detokenize", [list(each) for each in ids], doing="decoding")
        found = _parse(tuple[str, ...], answer, "detokenize")
        _check_count("detokenize", len(found), len(ids))
        return list(found)

    async def chat(self, messages: Sequence[dict[str, str]]) -> Rendered:
        """The chat template's rendering with the generation prompt, and its ids."""
        answer = await self._ask("chat", list(messages), doing="rendering a chat")
        return _parse(Rendered, answer, "chat")

    async def generate(self, prompt: Sequence[int], tokens: int) -> GenerateResult:
        """``tokens`` (at least 1) greedy tokens after ``prompt``, past any end-of-text token."""
        answer = await self._ask(
            "generate",
            list(prompt),
            tokens,
            True,
            doing=f"generating {tokens} tokens after {len(prompt)}",
        )
        result = _parse(GenerateResult, answer, "generate")
        if len(result.tokens) != tokens or len(result.at_ms) != tokens:
            raise PageContractBroken("generate", f"{len(result.tokens)} tokens, asked for {tokens}")
        return result

    async def generate_within(
        self, prompt: Sequence[int], tokens: int, *, seconds: float
    ) -> GenerateResult:
        """As :meth:`generate`, but no token is waited for once ``seconds`` have passed.

        There are fewer tokens then, at least one.
        """
        answer = await self._ask(
            "generate",
            list(prompt),
            tokens,
            True,
            seconds * 1000,
            doing=f"generating up to {tokens} tokens after {len(prompt)}",
            s=seconds + self._seconds(len(prompt)),
        )
        result = _parse(GenerateResult, answer, "generate")
        if not 0 < len(result.tokens) == len(result.at_ms) <= tokens:
            raise PageContractBroken("generate", f"{len(result.tokens)} tokens of {tokens}")
        return result

    async def generate_until(
        self,
        prompt: Sequence[int],
        tokens: int,
        stops: Sequence[str],
        stop_tokens: Sequence[int] = (),
    ) -> GenerateResult:
        """At most ``tokens`` greedy tokens after ``prompt``.

        Ends early with the token that brings one of ``stops`` into the text, which is
        included, or before an end-of-text token or one of ``stop_tokens``, which is not.
        """
        answer = await self._ask(
            "generateUntil",
            list(prompt),
            tokens,
            list(stops),
            list(stop_tokens),
            doing=f"generating at most {tokens} tokens after {len(prompt)}",
            s=self._seconds(len(prompt) + tokens),
        )
        return _parse(GenerateResult, answer, "generateUntil")

    async def logprobs(
        self, tokens: Sequence[int], wanted: Sequence[tuple[int, int]]
    ) -> tuple[TokenChance, ...]:
        """For each row and token of ``wanted``: how likely the token is after that row.

        Args:
            tokens: what is fed, at least one; row i has seen ``tokens[: i + 1]``.
            wanted: a row may occur several times, with different tokens.
        """
        answer = await self._ask(
            "logprobs",
            list(tokens),
            [list(pair) for pair in wanted],
            doing=f"scoring {len(tokens)} tokens",
            s=self._seconds(len(tokens)),
        )
        found = _parse(tuple[TokenChance, ...], answer, "logprobs")
        _check_count("logprobs", len(found), len(wanted))
        return found

    async def score(self, tokens: Sequence[int], rows: int) -> AsyncIterator[Block]:
        """Teacher-force ``tokens``; yields their logits in order, ``rows`` at a time."""
        await self._ask("scoreStart", list(tokens), rows, doing="starting to score")
        done = 0
        while done < len(tokens):
            answer = await self._ask("scoreNext", doing=f"scoring from token {done}")
            if answer is None:
                break
            block = _parse(LogitsBlock, answer, "scoreNext")
            if block.start != done:
                raise PageContractBroken("scoreNext", f"row {block.start}, expected {done}")
            if block.rows > len(tokens) - done:
                raise PageContractBroken("scoreNext", f"{block.rows} rows from {done} on")
            yield Block(block.start, _decode(block))
            done += block.rows
        if done != len(tokens):
            raise PageContractBroken("scoreNext", f"{done} rows for {len(tokens)} tokens")

    async def memory(self) -> PageMemory:
        """What the page sees of its own memory."""
        answer = await self._ask("memory", doing="looking at its memory", s=_MEMORY_SECONDS)
        return _parse(PageMemory, answer, "memory")

    async def release(self) -> None:
        """Release the model; another may be loaded."""
        await self._ask("dispose", doing="releasing the model")

    async def bandwidth(self, *, on_gpu: bool, size: int, threads: int) -> Bandwidth:
        """How fast ``size`` bytes move on the GPU, or in each of ``threads`` threads."""
        answer = await self._ask(
            "bandwidth", on_gpu, size, threads, doing="moving memory to see how fast that is"
        )
        return _parse(Bandwidth, answer, "bandwidth")

    async def time_gpu(self) -> None:
        """Have the GPU time its compute passes, those of a model loaded after this."""
        await self._ask("timeGpu", doing="starting to time the GPU")

    async def gpu_passes(self) -> GpuPasses:
        """The compute passes since the last call."""
        return _parse(GpuPasses, await self._ask("gpuPasses", doing="timing the GPU"), "gpuPasses")

    async def gpu_buffers(self) -> tuple[GpuBuffers, ...]:
        """The GPU buffers that live, by label and size."""
        answer = await self._ask("gpuBuffers", doing="counting its GPU buffers")
        return _parse(tuple[GpuBuffers, ...], answer, "gpuBuffers")

    async def forget(self) -> None:
        """Delete everything that pages of this origin store."""
        await self._ask("forget", doing="deleting what is stored")

    async def close(self) -> None:
        """Release the model and close the tab."""
        await self.release()
        await self.tab.close(seconds=_CLOSE_SECONDS)

    def _seconds(self, tokens: int) -> float:
        """Deadline of a call that cannot be cut into pieces: long texts may take longer."""
        return self.call_seconds * (1 + tokens // _TOKENS_PER_CALL)

    async def _ask(self, method: str, *arguments: Any, doing: str, s: float | None = None) -> Any:
        return await self.tab.call(
            OBJECT, method, *arguments, seconds=s or self.call_seconds, doing=doing
        )


def _check_count(method: str, count: int, wanted: int) -> None:
    if count != wanted:
        raise PageContractBroken(method, f"{count} answers, wanted {wanted}")


def _parse(kind: type[Answer], answer: Any, method: str) -> Answer:
    try:
        return TypeAdapter(kind).validate_python(answer)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PageContractBroken(method, f"{where}: {first['msg']}") from None


def _decode(block: LogitsBlock) -> NDArray[np.float32]:
    try:
        raw = base64.b64decode(block.data, validate=True)
    except binascii.Error as error:
        raise PageContractBroken("scoreNext", str(error)) from None
    if len(raw) != 4 * block.rows * block.vocabulary or block.rows < 1:
        raise PageContractBroken(
            "scoreNext", f"{len(raw)} bytes for {block.rows} rows of {block.vocabulary}"
        )
    return np.frombuffer(raw, dtype="<f4").reshape(block.rows, block.vocabulary)

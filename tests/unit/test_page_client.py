"""What a page answers is believed only in the shape that it was asked for."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from browser_harness.client import MeasurePage, PageContractBroken
from browser_harness.tab import Tab

Call = Callable[[MeasurePage], Awaitable[Any]]


class Answering:
    """A tab whose page gives the same answer to everything."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def call(self, *_: Any, **__: Any) -> Any:
        return self.answer


def _ask(call: Call, answer: Any) -> Any:
    async def work() -> Any:
        return await call(MeasurePage(cast("Tab", Answering(answer)), call_seconds=1))

    return asyncio.run(work())


CALLS: dict[str, Call] = {
    "tokenize": lambda page: page.tokenize(["a", "b"]),
    "detokenize": lambda page: page.detokenize([[1], [2]]),
    "chat": lambda page: page.chat([{"role": "user", "content": "a"}]),
    "logprobs": lambda page: page.logprobs([1, 2], [(0, 2), (1, 3)]),
    "gpuBuffers": lambda page: page.gpu_buffers(),
}


@pytest.mark.parametrize("answer", [None, 1, "ab", {}, [None, None], [[["a"]], {}]], ids=repr)
@pytest.mark.parametrize("method", CALLS)
def test_another_shape_is_the_page_s_failure(method: str, answer: Any) -> None:
    with pytest.raises(PageContractBroken, match=f"{method} answered badly") as caught:
        _ask(CALLS[method], answer)
    assert caught.value.code == "page-contract"


@pytest.mark.parametrize(
    ("method", "answer"),
    [("tokenize", [[1]]), ("detokenize", ["a", "b", "c"]), ("logprobs", [])],
)
def test_too_few_or_too_many_answers_are(method: str, answer: Any) -> None:
    with pytest.raises(PageContractBroken, match="answers, wanted 2"):
        _ask(CALLS[method], answer)


def _block(rows: int, start: int = 0) -> dict[str, Any]:
    data = base64.b64encode(bytes(4 * rows * 5)).decode()
    return {"start": start, "rows": rows, "vocabulary": 5, "data": data}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (_block(3), "3 rows from 0 on"),
        (_block(1, start=1), "row 1, expected 0"),
        ({**_block(2), "vocabulary": 4}, "40 bytes for 2 rows of 4"),
        (None, "0 rows for 2 tokens"),
    ],
)
def test_rows_that_nobody_asked_for_are_refused(answer: Any, why: str) -> None:
    async def score(page: MeasurePage) -> list[Any]:
        return [block async for block in page.score([1, 2], 16)]

    with pytest.raises(PageContractBroken, match=why):
        _ask(score, answer)
    [block] = _ask(score, _block(2))
    assert block.logits.shape == (2, 5)


def test_what_fits_is_taken() -> None:
    assert _ask(CALLS["tokenize"], [[1, 2], []]) == [(1, 2), ()]
    assert _ask(CALLS["detokenize"], ["a", ""]) == ["a", ""]
    assert _ask(CALLS["chat"], {"rendered": "a", "ids": [1]}).ids == (1,)

"""How each runtime is driven in a page.

All of them run in the measuring page, whose hooks count what is asked of the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import click

from browser_harness.client import OBJECT, MeasurePage
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab
from manifests.bundle import MANIFEST_NAME
from manifests.page import LoadRequest
from tests.bench.contest.sides import Engine, Side

SECONDS = 600.0


@dataclass(frozen=True)
class Prompt:
    """The same prompt as text and as token ids."""

    text: str
    ids: tuple[int, ...]


class Runtime(Protocol):
    """A runtime in a page that was opened for it."""

    async def load(self, side: Side) -> float:
        """Milliseconds until it can generate."""
        ...

    async def generate(self, prompt: Prompt, tokens: int) -> list[float]:
        """Milliseconds from the start to each of ``tokens`` greedy tokens."""
        ...

    async def surprise(self, ids: Sequence[int]) -> float:
        """The sum of -ln p of every token after the first."""
        ...


class Ours:
    """The bundle's own runtime."""

    def __init__(self, tab: Tab, url: str) -> None:
        self._page = MeasurePage(tab, call_seconds=SECONDS)
        self._url = url

    async def load(self, side: Side) -> float:
        """See :class:`Runtime`."""
        request = LoadRequest(
            manifest_url=f"{self._url}/bundle/{MANIFEST_NAME}",
            target=side.source,
            threads=side.threads,
        )
        loaded = await self._page.load(request, seconds=SECONDS)
        _check_threads(side, loaded.threads)
        return loaded.timings.total_ms

    async def generate(self, prompt: Prompt, tokens: int) -> list[float]:
        """See :class:`Runtime`."""
        return list((await self._page.generate(prompt.ids, tokens)).at_ms)

    async def surprise(self, ids: Sequence[int]) -> float:
        """See :class:`Runtime`."""
        wanted = list(enumerate(ids[1:]))
        return -sum(chance.logprob for chance in await self._page.logprobs(ids, wanted))


class TransformersJs:
    """transformers.js, which opens a folder of the site."""

    module = "transformers.js"

    def __init__(self, tab: Tab, url: str) -> None:
        self._tab, self._url = tab, url

    async def load(self, side: Side) -> float:
        """See :class:`Runtime`."""
        loaded = await self._call("load", side.source, dict(side.options), side.threads)
        _check_threads(side, loaded["threads"])
        return float(loaded["ms"])

    async def generate(self, prompt: Prompt, tokens: int) -> list[float]:
        """See :class:`Runtime`."""
        return list((await self._call("generate", list(prompt.ids), tokens))["at_ms"])

    async def surprise(self, ids: Sequence[int]) -> float:
        """See :class:`Runtime`."""
        return float(await self._call("score", list(ids)))

    async def _call(self, method: str, *given: Any) -> Any:
        return await self._tab.call("peer", method, *given, seconds=SECONDS, doing=method)


class Wllama(TransformersJs):
    """wllama, which is given text: its completion takes no ids."""

    module = "wllama.js"

    async def generate(self, prompt: Prompt, tokens: int) -> list[float]:
        """See :class:`Runtime`; of its own clock and the page's, the one in its favour.

        Its own leaves out the messages between its worker and the page.
        """
        result = await self._call("generate", prompt.text, tokens)
        own, at = result["own"], result["at_ms"]
        first = min(at[0], own["prompt_ms"])
        step = min((at[-1] - at[0]) / (len(at) - 1), own["predicted_per_token_ms"])
        return [first + step * number for number in range(len(at))]


RUNTIMES: MappingProxyType[Engine, type[Ours | TransformersJs]] = MappingProxyType(
    {"tabwright": Ours, "transformers.js": TransformersJs, "wllama": Wllama}
)


async def open_runtime(tab: Tab, site: StaticServer, side: Side) -> Runtime:
    """Open the measuring page in ``tab`` and bring ``side``'s runtime into it.

    From here on ``site`` counts the bytes of the runtime and of what it loads.
    """
    site.reset()
    await tab.open(f"{site.url}/harness/index.html", OBJECT, seconds=SECONDS)
    kind = RUNTIMES[side.engine]
    if issubclass(kind, TransformersJs):
        # The measuring page brought our runtime along, which is no part of theirs.
        site.reset()
        bring = "async (url) => { await import(url); }"
        await tab.evaluate(bring, f"/peers/{kind.module}", seconds=SECONDS, doing="importing")
    return kind(tab, site.url)


def _check_threads(side: Side, got: int) -> None:
    if got != side.threads:
        raise click.ClickException(f"{side.name} took {got} threads, not {side.threads}")

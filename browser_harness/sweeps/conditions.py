"""The same load under different conditions: what is stored, cached, and how fast the network is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from browser_harness.loads import Bench, leave, load
from browser_harness.prompts import Prompts
from browser_harness.sweeps.asked import NETWORKS, Network
from browser_harness.tab import Tab
from manifests.progress import Progress
from manifests.sweeps import Condition, ConditionLoad

_SECONDS = 60.0


@dataclass(frozen=True)
class _State:
    """What a load finds.

    Attributes:
        stored: whether what the page keeps is left as it is.
        cached: whether the browser's HTTP cache is.
        offline: whether the network goes once the page is open.
        throttled: whether the network is slow.
    """

    stored: bool = False
    cached: bool = True
    offline: bool = False
    throttled: bool = False


#: In this order: each is what the one before leaves, but for what is said here.
CONDITIONS: dict[Condition, _State] = {
    "cold": _State(cached=False),
    "http-cache": _State(),
    "opfs": _State(stored=True),
    "offline": _State(stored=True, offline=True),
    "throttled": _State(cached=False, throttled=True),
}


async def sweep_loads(
    bench: Bench, prompts: Prompts, network: str, size: int, progress: Progress
) -> tuple[ConditionLoad, ...]:
    """Each condition as often as the plan says, ``network`` once.

    A load takes ``size`` bytes where nothing is stored.

    Rounds go over all conditions, so that a slow minute falls on more than one.
    """
    plan, taken = bench.plan, []
    rounds = [
        (condition, state)
        for turn in range(plan.sweep_loads)
        for condition, state in CONDITIONS.items()
        if turn == plan.sweep_loads - 1 or not state.throttled
    ]
    phase = f"{bench.target}: load matrix"
    for done, (condition, state) in enumerate(rounds):
        progress(phase, done, len(rounds))
        await _prepare(bench, state)
        slow = NETWORKS[network] if state.throttled else None
        loaded = await load(
            # That nothing answers is what being offline means: no error to be counted.
            replace(bench, console=[]) if state.offline else bench,
            condition,
            prompts,
            1,
            before=None if slow is None else _emulate(slow),
            opened=_go_offline if state.offline else None,
            seconds=plan.load_seconds + (2 * 8 * size / slow.down_bits if slow else 0),
        )
        taken.append(
            ConditionLoad(
                condition=condition,
                network=network if slow else None,
                timings=loaded.sample.timings,
                first_token_ms=loaded.sample.first_token_ms,
                bytes_on_wire=loaded.sample.bytes_on_wire,
            )
        )
        await leave(bench, loaded)
    progress(phase, len(rounds), len(rounds))
    return tuple(taken)


async def _prepare(bench: Bench, state: _State) -> None:
    """Empty what ``state`` finds empty, from a page of the same origin."""
    if state.stored and state.cached:
        return
    page = await bench.open(bench.session)
    if not state.stored:
        await page.forget()
    if not state.cached:
        await page.tab.command("Network.clearBrowserCache", seconds=_SECONDS)
    await page.tab.close(seconds=_SECONDS)


def _emulate(network: Network) -> Callable[[Tab], Awaitable[None]]:
    async def emulate(tab: Tab) -> None:
        await tab.command("Network.enable", seconds=_SECONDS)
        await tab.command(
            "Network.emulateNetworkConditions",
            offline=False,
            latency=network.latency_ms,
            downloadThroughput=network.down_bits / 8,
            uploadThroughput=network.up_bits / 8,
            seconds=_SECONDS,
        )

    return emulate


async def _go_offline(tab: Tab) -> None:
    await tab.command("Network.enable", seconds=_SECONDS)
    await tab.command(
        "Network.emulateNetworkConditions",
        offline=True,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
        seconds=_SECONDS,
    )

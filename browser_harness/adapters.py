"""Which WebGPU adapter there is, asked of a page rather than guessed from the machine."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Playwright

from browser_harness.browsers import BrowserMissing
from browser_harness.flags import AdapterChoice, AdapterKind
from browser_harness.launch import Session, launch
from browser_harness.serve import StaticServer
from manifests.base import Schema
from manifests.errors import EnvironmentProblem
from manifests.page import Adapter

PROBE_PAGE = Path(__file__).parent / "probe"

_SECONDS = 60.0


class AdapterMissing(EnvironmentProblem):
    """The adapter that was asked for is not there."""

    code = "adapter-missing"

    def __init__(self, kind: AdapterKind) -> None:
        super().__init__(
            f"this browser has no {kind} WebGPU adapter on this machine",
            "run 'tabwright doctor' to see what there is, or take --adapter auto",
        )


class Probe(Schema):
    """What a page finds in a browser; ``software`` is its word on the adapter."""

    adapter: Adapter | None = None
    software: bool
    jspi: bool
    cross_origin_isolated: bool


async def probe(session: Session) -> Probe:
    """Ask a page of our own what it can use.

    Raises:
        PageTimeout, PageCrashed, BrowserDied, PageUnreachable, PageFailure: the browser
            did not survive the question.
    """
    with StaticServer({"/": PROBE_PAGE}) as server:
        tab = await session.new_tab()
        await tab.open(f"{server.url}/", "tabwrightProbe", seconds=_SECONDS)
        answer = await tab.evaluate(
            "() => tabwrightProbe()", seconds=_SECONDS, doing="looking for a WebGPU adapter"
        )
        await tab.close(seconds=_SECONDS)
    return Probe.model_validate(answer)


def has_kind(found: Probe, kind: AdapterKind) -> bool:
    """Tell whether the probe found an adapter of that kind.

    A browser started for hardware answers with a software adapter where there is none.
    """
    return found.adapter is not None and found.software == (kind == "software")


async def resolve_adapter(
    playwright: Playwright, choice: AdapterChoice, *, executable: Path | None
) -> AdapterKind:
    """Settle what to start the browser for.

    ``auto`` becomes ``hardware`` where a page finds it, else ``software``, else
    ``none``: targets that need no GPU can be measured there, and the others say why not.
    A browser that does not come through being started for an adapter does not have it.

    Raises:
        AdapterMissing: the one that was asked for by name is not there.
        BrowserMissing: there is no browser to ask.
        EnvironmentProblem: the browser failed when started for the one that was named.
    """
    if choice == "none":
        return "none"
    kinds: tuple[AdapterKind, ...] = ("hardware", "software") if choice == "auto" else (choice,)
    for kind in kinds:
        try:
            async with launch(playwright, executable=executable, adapter=kind) as session:
                found = await probe(session)
        except BrowserMissing:
            raise
        except EnvironmentProblem:
            if choice != "auto":
                raise
            continue
        if has_kind(found, kind):
            return kind
    if choice == "auto":
        return "none"
    raise AdapterMissing(choice)

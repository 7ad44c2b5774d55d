"""What is done to a browser while it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

from browser_harness.launch import Session
from browser_harness.processes import find_processes, process_type
from browser_harness.tab import Tab


@dataclass(frozen=True)
class Blow:
    """Whom it strikes."""

    session: Session
    tab: Tab
    #: Of the page that the tab shows.
    url: str

    def evaluate(self, expression: str) -> Awaitable[Any]:
        return self.tab._page.evaluate(expression)


Strike = Callable[[Blow], Awaitable[None]]


def kill_processes(session: Session, kind: str) -> int:
    killed = 0
    for process in find_processes(session.profile):
        # The death of the browser takes the others along while we look at them.
        with suppress(psutil.NoSuchProcess):
            if process_type(process) == kind:
                process.kill()
                killed += 1
    return killed


def kills(kind: str) -> Strike:
    async def strike(blow: Blow) -> None:
        assert kill_processes(blow.session, kind) > 0

    return strike


def kill_drivers() -> None:
    drivers = [
        child
        for child in psutil.Process().children()
        if any("playwright" in argument for argument in child.cmdline())
    ]
    assert drivers
    for each in drivers:
        each.kill()


async def kills_driver(_: Blow) -> None:
    kill_drivers()


def runs(expression: str) -> Strike:
    """Has the page run something that it may never come back from."""

    async def strike(blow: Blow) -> None:
        with suppress(Exception):
            await blow.evaluate(expression)

    return strike


def grants(bytes_: int) -> Strike:
    """Gives the page's origin so much storage."""

    async def strike(blow: Blow) -> None:
        devtools = await blow.session._context.new_cdp_session(blow.tab._page)
        site = urlsplit(blow.url)
        await devtools.send(
            "Storage.overrideQuotaForOrigin",
            {"origin": f"{site.scheme}://{site.netloc}", "quotaSize": bytes_},
        )

    return strike


def after(seconds: float, strike: Strike) -> Strike:
    async def later(blow: Blow) -> None:
        await asyncio.sleep(seconds)
        await strike(blow)

    return later


#: Keeps hold of the devices that the page makes.
KEEP_DEVICES = """() => {
  const {requestDevice} = GPUAdapter.prototype;
  globalThis.devices = [];
  GPUAdapter.prototype.requestDevice = async function (...given) {
    const device = await requestDevice.apply(this, given);
    devices.push(device);
    return device;
  };
}"""
LOSE_DEVICES = "() => { for (const device of devices) device.destroy(); }"
LOOP = "() => { for (;;); }"
#: Fills V8's heap, which is where a renderer's own limit is.
FILL_HEAP = "() => { const kept = []; for (;;) kept.push(new Array(10_000).fill({})); }"
#: Every larger buffer fails as it does where the GPU's memory is full.
FULL_GPU = """() => {
  const {createBuffer} = GPUDevice.prototype;
  GPUDevice.prototype.createBuffer = function (asked) {
    const {maxBufferSize} = this.limits;
    const size = asked.size > 4096 ? 2 * maxBufferSize : asked.size;
    return createBuffer.call(this, {...asked, size});
  };
}"""

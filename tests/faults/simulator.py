"""The harness's own server with a fault in it: an answer gone wrong is a few lines here."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from browser_harness.serve import StaticServer


@dataclass
class Exchange:
    """One request, and the means to answer it rightly or wrongly."""

    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    server: Simulator

    async def right(self) -> tuple[int, dict[str, str], bytes]:
        """What the server would have answered."""
        status, headers, body = 0, dict[str, str](), bytearray()

        async def keep(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                body.extend(message["body"])

        await self.app(self.scope, self.receive, keep)
        return status, headers, bytes(body)

    async def say(
        self, status: int, headers: dict[str, str], body: bytes, *, ends: bool = True
    ) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body, "more_body": not ends})

    def without_range(self) -> None:
        kept = [pair for pair in self.scope["headers"] if pair[0] != b"range"]
        self.scope = {**self.scope, "headers": kept}

    async def reset(self) -> None:
        """End the connection with RST, as a broken network does."""
        transport: asyncio.Transport = self.send.__self__.transport  # type: ignore[attr-defined]
        own: socket.socket = transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await self.gone()

    async def gone(self) -> None:
        """Wait until the other side has left."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


Answer = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class Wrong:
    """How requests for a file go wrong.

    Attributes:
        file: the end of its path; ``""`` is every file.
        first: answers to the first requests, one each.
        then: the answer to all later ones; ``None`` is the right one.
    """

    file: str
    first: tuple[Answer, ...] = ()
    then: Answer | None = None


@dataclass
class Script:
    """What goes wrong now; told to the server's thread by the test's."""

    wrong: Wrong | None = None
    asked: int = 0
    #: When the first wrong answer began (``time.monotonic``).
    since: float | None = None

    def set(self, wrong: Wrong | None) -> None:
        self.wrong, self.asked, self.since = wrong, 0, None

    def answer(self, path: str) -> Answer | None:
        if self.wrong is None or not path.endswith(self.wrong.file):
            return None
        self.since = self.since or time.monotonic()
        self.asked += 1
        first = self.wrong.first
        return first[self.asked - 1] if self.asked <= len(first) else self.wrong.then


class Simulator(StaticServer):
    """A static server that follows a script."""

    def __init__(self, folders: Mapping[str, Path], script: Script) -> None:
        super().__init__(folders)
        self._script = script

    def die(self) -> None:
        # What else is being answered ends; by force, it would leave its file open.
        self._server.should_exit = True

    def _application(self) -> ASGIApp:
        app = super()._application()

        async def simulated(scope: Scope, receive: Receive, send: Send) -> None:
            answer = self._script.answer(scope["path"])
            if answer is None:
                await app(scope, receive, send)
            else:
                await answer(Exchange(app, scope, receive, send, self))

        return simulated


def status(code: int) -> Answer:
    async def answer(exchange: Exchange) -> None:
        await exchange.say(code, {"content-type": "text/plain"}, b"no\n")

    return answer


def reset_at(byte: int) -> Answer:
    async def answer(exchange: Exchange) -> None:
        found, headers, body = await exchange.right()
        await exchange.say(found, headers, body[:byte], ends=False)
        await asyncio.sleep(0.2)  # What was sent should arrive before the reset does.
        await exchange.reset()

    return answer


def ends_at(byte: int) -> Answer:
    """Without a length, so that nothing but the missing bytes tells of it."""

    async def answer(exchange: Exchange) -> None:
        found, headers, body = await exchange.right()
        del headers["content-length"]
        await exchange.say(found, headers, body[:byte])

    return answer


def pauses(seconds: float) -> Answer:
    async def answer(exchange: Exchange) -> None:
        found, headers, body = await exchange.right()
        await exchange.say(found, headers, body[: len(body) // 2], ends=False)
        await asyncio.sleep(seconds)
        rest = body[len(body) // 2 :]
        await exchange.send({"type": "http.response.body", "body": rest, "more_body": False})

    return answer


async def stalls(exchange: Exchange) -> None:
    found, headers, body = await exchange.right()
    await exchange.say(found, headers, body[: len(body) // 2], ends=False)
    await exchange.gone()


async def whole(exchange: Exchange) -> None:
    """200 where 206 was asked for."""
    exchange.without_range()
    await exchange.say(*await exchange.right())


async def wrong_range(exchange: Exchange) -> None:
    found, headers, body = await exchange.right()
    first, last, size = map(int, re.findall(r"\d+", headers["content-range"]))
    headers["content-range"] = f"bytes {first + 1}-{last + 1}/{size + 1}"
    await exchange.say(found, headers, body)


async def other_size(exchange: Exchange) -> None:
    found, headers, body = await exchange.right()
    headers["content-range"] = headers["content-range"].partition("/")[0] + "/999999999"
    await exchange.say(found, headers, body)


async def other_etag(exchange: Exchange) -> None:
    """The same bytes under a new name, as after a redeployment."""
    found, headers, body = await exchange.right()
    await exchange.say(found, headers | {"etag": '"another"'}, body)


async def other_build(exchange: Exchange) -> None:
    """Bytes of the right number, but another build's."""
    found, headers, body = await exchange.right()
    await exchange.say(found, headers | {"etag": '"another"'}, body[::-1])


async def recompressed(exchange: Exchange) -> None:
    """A proxy that knows better: gzip, and ranges forgotten."""
    exchange.without_range()
    _, headers, body = await exchange.right()
    packed = gzip.compress(body, 1)
    changed = {"content-encoding": "gzip", "content-length": str(len(packed))}
    await exchange.say(200, headers | changed, packed)


async def a_page_instead(exchange: Exchange) -> None:
    """What hosts of single-page applications send for everything that they do not have."""
    await exchange.say(200, {"content-type": "text/html"}, b"<!doctype html><p>Welcome")


async def old_manifest(exchange: Exchange) -> None:
    """A manifest of a version that is not ours, with the seal that belongs to it."""
    found, headers, body = await exchange.right()
    document = json.loads(body) | {"version": 0, "seal": "0" * 64}
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    old = text.replace("0" * 64, sha256(text.encode()).hexdigest()).encode()
    await exchange.say(found, headers | {"content-length": str(len(old))}, old)


async def unisolated(exchange: Exchange) -> None:
    found, headers, body = await exchange.right()
    kept = {name: value for name, value in headers.items() if "cross-origin" not in name}
    await exchange.say(found, kept, body)


async def dies(exchange: Exchange) -> None:
    """The server ends in the middle of its answer."""
    found, headers, body = await exchange.right()
    await exchange.say(found, headers, body[: len(body) // 2], ends=False)
    exchange.server.die()
    await exchange.reset()

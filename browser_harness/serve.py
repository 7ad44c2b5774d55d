"""A static file server for one run: loopback only, read only, counted.

The page needs cross-origin isolation for WASM threads, so every response carries
the headers for it; a bundle that works here asks no more of its final host.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import Self

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from manifests.errors import EnvironmentProblem

LOOPBACK = "127.0.0.1"

#: Python's own table depends on the system's; modules and WASM must not.
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".jinja": "text/plain",
}

_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' blob: 'wasm-unsafe-eval'",
    "worker-src": "'self' blob:",
    "connect-src": "'self' blob:",
    "img-src": "'self' data:",
    "style-src": "'self' 'unsafe-inline'",
}

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "; ".join(f"{kind} {of}" for kind, of in _POLICY.items()),
}

_START_SECONDS = 10.0
_STOP_SECONDS = 10.0


class PortInUse(EnvironmentProblem):
    """The port that was asked for cannot be bound."""

    code = "port-in-use"

    def __init__(self, port: int, reason: str) -> None:
        super().__init__(
            f"cannot listen on {LOOPBACK}:{port}: {reason}",
            "choose another port, or 0 for any free one",
        )


class ServerStuck(EnvironmentProblem):
    """The server's thread did not start in time."""

    code = "server-stuck"

    def __init__(self) -> None:
        super().__init__(f"the file server did not start within {_START_SECONDS:.0f} s")


class _Folder(StaticFiles):
    """Files of one folder, with media types that do not depend on the system."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        suffix = PurePath(full_path).suffix
        if suffix in MEDIA_TYPES:
            response.headers["content-type"] = MEDIA_TYPES[suffix]
        # The browser's HTTP cache would hold weights a second time, and would make a
        # cold load look warm.
        is_weights = suffix.startswith(".onnx")
        response.headers["cache-control"] = "no-store" if is_weights else "no-cache"
        return response


class _Guard:
    """Refuses what a static server has no reason to answer, and counts what it sends."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts
        self._lock = threading.Lock()
        self._bytes = 0

    def take_bytes(self, *, reset: bool) -> int:
        with self._lock:
            sent = self._bytes
            if reset:
                self._bytes = 0
            return sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            elif message["type"] == "http.response.body":
                with self._lock:
                    self._bytes += len(message.get("body", b""))
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, counted)

    def _refusal(self, scope: Scope) -> Response | None:
        if Headers(scope=scope).get("host") not in self._hosts:
            # A page elsewhere can point a name of its own at 127.0.0.1.
            return PlainTextResponse("unknown host\n", status_code=421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("read only\n", status_code=405, headers={"Allow": "GET, HEAD"})
        if "\0" in scope["path"]:
            return PlainTextResponse("not a path\n", status_code=400)
        return None


class _Protocol(H11Protocol):
    """Sends the headers of every answer also with the one to what is no HTTP."""

    def send_400_response(self, msg: str) -> None:
        headers = {"Content-Type": "text/plain", "Connection": "close", **HEADERS}
        answer = (
            h11.Response(status_code=400, headers=list(headers.items()), reason="Bad Request"),
            h11.Data(data=f"{msg}\n".encode()),
            h11.EndOfMessage(),
        )
        for event in answer:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class StaticServer:
    """Serves folders on the loopback interface from a background thread.

    Use as a context manager; it always stops at the end.

    Args:
        folders: URL prefix to folder, e.g. ``{"/bundle": path}``; the prefix ``"/"``
            is tried last.
        port: TCP port, 0 for any free one.

    Raises:
        PortInUse: on entry, when the port cannot be bound.
        ServerStuck: on entry, when the server does not come up.
    """

    def __init__(self, folders: Mapping[str, Path], port: int = 0) -> None:
        self._folders = dict(sorted(folders.items(), key=lambda item: -len(item[0])))
        self._asked_port = port

    def __enter__(self) -> Self:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, self._asked_port))
        except OSError as error:
            listener.close()
            raise PortInUse(self._asked_port, error.strerror or str(error)) from None
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._application(),
                http=_Protocol,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="static-server", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                self._stop()
                raise ServerStuck
            time.sleep(0.005)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _application(self) -> ASGIApp:
        mounts = [
            Mount(prefix, _Folder(directory=folder, html=True))
            for prefix, folder in self._folders.items()
        ]
        hosts = frozenset(f"{name}:{self.port}" for name in (LOOPBACK, "localhost"))
        self._guard = _Guard(Starlette(routes=mounts), hosts)
        return self._guard

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._listener.close()

    @property
    def url(self) -> str:
        """The origin, without a trailing slash."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def bytes_sent(self) -> int:
        """Body bytes sent since the start or the last :meth:`reset`."""
        return self._guard.take_bytes(reset=False)

    def reset(self) -> int:
        """Start counting at 0 again; returns the count until now, in bytes."""
        return self._guard.take_bytes(reset=True)

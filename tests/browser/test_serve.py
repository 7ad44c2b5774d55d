"""The static server: what it serves, what it refuses, what it counts."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import uvicorn

from browser_harness import serve
from browser_harness.serve import PortInUse, ServerStuck, StaticServer

WEIGHTS = bytes(range(256)) * 1024


@pytest.fixture
def site(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundle"
    (bundle / "onnx").mkdir(parents=True)
    (bundle / "index.html").write_text("<!doctype html><title>chat</title>")
    (bundle / "a.mjs").write_text("export const a = 1;\n")
    (bundle / "a.wasm").write_bytes(b"\0asm\1\0\0\0")
    (bundle / "onnx" / "model_q4.onnx_data").write_bytes(WEIGHTS)
    (bundle / "folder").mkdir()
    (bundle / "folder" / "index.html").write_text("<!doctype html>")
    (tmp_path / "secret.txt").write_text("secret")
    (bundle / "link.txt").symlink_to(tmp_path / "secret.txt")
    (bundle / "linked").symlink_to(tmp_path)
    return tmp_path


@pytest.fixture
def server(site: Path) -> Iterator[StaticServer]:
    with StaticServer({"/bundle": site / "bundle", "/": site / "bundle"}) as server:
        yield server


def ask(
    server: StaticServer,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        lowered = {name.lower(): value for name, value in response.getheaders()}
        return response.status, lowered, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/bundle/a.mjs", "text/javascript"),
        ("/bundle/a.wasm", "application/wasm"),
        ("/bundle/onnx/model_q4.onnx_data", "application/octet-stream"),
        ("/", "text/html"),
        ("/index.html", "text/html"),
    ],
)
def test_media_types(server: StaticServer, path: str, media_type: str) -> None:
    status, headers, _ = ask(server, path)
    assert status == 200
    assert headers["content-type"].split(";")[0] == media_type


def assert_isolating(headers: Mapping[str, str]) -> None:
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "'unsafe-eval'" not in policy


@pytest.mark.parametrize(
    ("expected", "path", "method", "sent"),
    [
        (200, "/bundle/a.mjs", "GET", {}),
        (200, "/bundle/a.mjs", "HEAD", {}),
        (206, "/bundle/a.mjs", "GET", {"Range": "bytes=0-3"}),
        (307, "/bundle/folder", "GET", {}),
        (400, "/bundle/a%00.mjs", "GET", {}),
        (404, "/bundle/missing", "GET", {}),
        (405, "/bundle/a.mjs", "POST", {}),
        (416, "/bundle/a.mjs", "GET", {"Range": "bytes=99999-"}),
        (421, "/bundle/a.mjs", "GET", {"Host": "evil.example"}),
    ],
)
def test_isolation_headers_on_every_answer(
    server: StaticServer, expected: int, path: str, method: str, sent: dict[str, str]
) -> None:
    status, headers, _ = ask(server, path, method, sent)
    assert status == expected
    assert_isolating(headers)


def test_isolation_headers_when_the_server_fails(
    server: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(serve._Folder, "file_response", fails)
    status, headers, _ = ask(server, "/bundle/a.mjs")
    assert status == 500
    assert_isolating(headers)


@pytest.mark.parametrize(
    ("expected", "request_"),
    [
        (400, "nonsense"),
        (400, "GET / HTTP/1.1\r\nHost : 127.0.0.1"),
        (400, "GET /a.mjs HTTP/1.1"),
        (421, "GET /a.mjs HTTP/1.0"),
        (404, "GET http://evil.example/a.mjs HTTP/1.1\r\nHost: {host}\r\nConnection: close"),
    ],
    ids=["no HTTP", "a space too many", "no host", "no host in HTTP/1.0", "as to a proxy"],
)
def test_what_no_browser_sends(server: StaticServer, expected: int, request_: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        host = f"127.0.0.1:{server.port}"
        connection.sendall(f"{request_.format(host=host)}\r\n\r\n".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == expected
        assert_isolating({name.lower(): value for name, value in response.getheaders()})
        assert b"export" not in response.read()


def test_weights_are_not_cached_and_the_rest_is_revalidated(server: StaticServer) -> None:
    assert ask(server, "/bundle/onnx/model_q4.onnx_data")[1]["cache-control"] == "no-store"
    _, headers, _ = ask(server, "/bundle/a.mjs")
    assert headers["cache-control"] == "no-cache"
    again, _, body = ask(server, "/bundle/a.mjs", headers={"If-None-Match": headers["etag"]})
    assert (again, body) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-15", 0, 15), ("bytes=100-199", 100, 199), ("bytes=-10", len(WEIGHTS) - 10, None)],
)
def test_ranges(server: StaticServer, asked: str, first: int, last: int | None) -> None:
    last = len(WEIGHTS) - 1 if last is None else last
    status, headers, body = ask(server, "/bundle/onnx/model_q4.onnx_data", headers={"Range": asked})
    assert status == 206
    assert headers["content-range"] == f"bytes {first}-{last}/{len(WEIGHTS)}"
    assert body == WEIGHTS[first : last + 1]


def test_range_beyond_the_end(server: StaticServer) -> None:
    asked = {"Range": f"bytes={len(WEIGHTS)}-"}
    assert ask(server, "/bundle/onnx/model_q4.onnx_data", headers=asked)[0] == 416


@pytest.mark.parametrize(
    "path",
    [
        "/bundle/../secret.txt",
        "/bundle/%2e%2e/secret.txt",
        "/bundle/..%2fsecret.txt",
        "/bundle/%252e%252e/secret.txt",
        "/bundle/..%5csecret.txt",
        "/bundle/....//secret.txt",
        "/bundle/onnx/../../secret.txt",
        "/..%2f..%2fetc/passwd",
        "/bundle//etc/passwd",
        "/bundle/link.txt",
        "/bundle/linked/secret.txt",
    ],
)
def test_traversal_is_refused(server: StaticServer, path: str) -> None:
    status, _, body = ask(server, path)
    assert status == 404
    assert b"secret" not in body
    assert b"root" not in body


def test_null_byte_is_refused(server: StaticServer) -> None:
    assert ask(server, "/bundle/a%00.mjs")[0] == 400


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1"])
def test_other_hosts_are_refused(server: StaticServer, host: str) -> None:
    status, _, body = ask(server, "/bundle/a.mjs", headers={"Host": host})
    assert status == 421
    assert b"export" not in body


def test_localhost_is_served(server: StaticServer) -> None:
    assert ask(server, "/", headers={"Host": f"localhost:{server.port}"})[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(server: StaticServer, method: str) -> None:
    status, headers, _ = ask(server, "/bundle/a.mjs", method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


def test_counts_the_body_bytes_that_left(server: StaticServer) -> None:
    ask(server, "/bundle/onnx/model_q4.onnx_data")
    ask(server, "/bundle/onnx/model_q4.onnx_data", headers={"Range": "bytes=0-99"})
    ask(server, "/bundle/onnx/model_q4.onnx_data", "HEAD")
    assert server.bytes_sent == len(WEIGHTS) + 100
    assert server.reset() == len(WEIGHTS) + 100
    assert server.bytes_sent == 0


def test_listens_on_loopback_only_and_stops(site: Path) -> None:
    with StaticServer({"/": site / "bundle"}) as server:
        port = server.port
        assert server._listener.getsockname()[0] == "127.0.0.1"
        assert ask(server, "/")[0] == 200
    assert not any(thread.name == "static-server" for thread in threading.enumerate())
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_taken_port_is_a_typed_error(server: StaticServer, site: Path) -> None:
    with pytest.raises(PortInUse) as caught, StaticServer({"/": site}, port=server.port):
        pass
    assert caught.value.code == "port-in-use"
    assert caught.value.exit_status == 4


def test_a_server_that_does_not_come_up_is_a_typed_error(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    with pytest.raises(ServerStuck), StaticServer({"/": site}):
        pass
    assert not any(thread.name == "static-server" for thread in threading.enumerate())

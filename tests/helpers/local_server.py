"""A local HTTP(S) server that misbehaves on request: each request is answered by the next behaviour of a list."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Records the Range of each request and plays the server's next behaviour; the last one repeats."""

    server: Any

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.ranges.append(self.headers.get("Range"))
            behaviours = self.server.behaviours
            behave = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        with contextlib.suppress(ConnectionError):
            behave(self)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def begin(self, body: bytes, *, ranged: bool = True) -> bytes:
        """Send status and headers for ``body`` (or the part of it that was asked for); returns what is to follow."""
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and ranged else 0
        if start >= len(body) and start:
            self.send_error(416)
            return b""
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        return body[start:]


def whole(body: bytes, *, ranged: bool = True) -> Behaviour:
    """Send all that was asked for; with ``ranged`` false, all of it whatever was asked for."""
    return lambda h: void(h.wfile.write(h.begin(body, ranged=ranged)))


def cut_after(body: bytes, n: int, *, ranged: bool = True) -> Behaviour:
    """Announce everything, send ``n`` bytes, hang up."""
    return lambda h: void(h.wfile.write(h.begin(body, ranged=ranged)[:n]))


def silent_after(body: bytes, n: int) -> Behaviour:
    """Announce everything, send ``n`` bytes, then hold the line and say nothing."""

    def behave(h: Handler) -> None:
        h.wfile.write(h.begin(body)[:n])
        h.wfile.flush()
        h.server.ended.wait(30)

    return behave


def mute(h: Handler) -> None:
    """Hold the line without even a header."""
    h.server.ended.wait(30)


def drip(body: bytes, n_chunks: int, pause_s: float) -> Behaviour:
    """Send everything, slowly but steadily."""

    def behave(h: Handler) -> None:
        rest = h.begin(body)
        step = -(-len(rest) // n_chunks)
        for i in range(0, len(rest), step):
            h.wfile.write(rest[i : i + step])
            h.wfile.flush()
            time.sleep(pause_s)

    return behave


def status(code: int) -> Behaviour:
    """Answer with an error."""
    return lambda h: h.send_error(code)


def void(_: Any) -> None:
    """Drop a value."""


@contextlib.contextmanager
def serving(*behaviours: Behaviour, tls: Path | None = None) -> Iterator[Any]:
    """A running server with ``.url``, ``.ranges`` (the Range header of each request) and ``.behaviours``."""
    server: Any = ThreadingHTTPServer(("localhost", 0), Handler)
    server.daemon_threads = True
    server.behaviours, server.ranges = list(behaviours), []
    server.lock, server.ended = threading.Lock(), threading.Event()
    server.handle_error = lambda *_: None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}/tiny.zip"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()

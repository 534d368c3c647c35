"""A web server for tests of what is carried from and to URLs."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Server(http.server.BaseHTTPRequestHandler):
    """Keeps what is put, and gives it back; cuts it short where the path says so."""

    kept: dict[str, bytes] = {}
    moved: dict[str, str] = {}
    """Where else a client is sent to."""

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.kept[self.path] = data
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        if self.path in self.moved:
            self.send_response(302)
            self.send_header("Location", self.moved[self.path])
            self.end_headers()
            return
        data = self.kept.get(self.path.removesuffix("?cut"))
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:1000] if self.path.endswith("?cut") else data)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[str]:
    """Give the address of such a server, which has kept nothing yet."""
    Server.kept.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""Serves the dashboard on this machine and follows runs as they progress."""

import hashlib
import json
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from bench.errors import InputError
from bench.findings.dashboard.data import Store
from bench.findings.dashboard.page import page


class LiveServer(ThreadingHTTPServer):
    """Serves the page, its data and the files of the results folder, to this machine only.

    Args:
        results: the folder.
        port: to listen on; 0 picks a free one.

    Raises:
        InputError: the port is taken or out of range.
    """

    daemon_threads = True

    def __init__(self, results: Path, port: int) -> None:
        self.store, self.lock = Store(results), Lock()
        try:
            super().__init__(("127.0.0.1", port), partial(_Handler, directory=str(results)))
        except (OSError, OverflowError) as error:
            raise InputError(f"--port: {port}; a free one from 0 to 65535 is needed: {error}") from error

    def data(self) -> bytes:
        """The page's data, as JSON."""
        with self.lock:
            return json.dumps(self.store.data(), ensure_ascii=False).encode()


class _Handler(SimpleHTTPRequestHandler):
    server: LiveServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.path == "/":
            self._send(page(None).encode(), "text/html; charset=utf-8")
        elif self.path == "/data.json":
            self._send(self.server.data(), "application/json")
        elif self.path == "/favicon.ico":
            self.send_error(HTTPStatus.NO_CONTENT)
        else:
            super().do_GET()  # configs and histories

    def _send(self, content: bytes, kind: str) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        same = self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if same else HTTPStatus.OK)
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", "no-cache")
        if not same:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not same:
            self.wfile.write(content)

    def guess_type(self, path: Any) -> str:
        """Serve text files as plain text, so that browsers show them instead of downloading them."""
        return "text/plain; charset=utf-8" if str(path).endswith((".yaml", ".csv", ".md")) else super().guess_type(path)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the page polls every two seconds."""

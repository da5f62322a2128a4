"""Serves the dashboard on this machine and follows runs as they progress."""

import hashlib
import json
import secrets
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.errors import InputError
from bench.findings.dashboard.data import Store
from bench.findings.dashboard.page import page

POLL_S = 2.0
NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Under which this machine asks. A page of another host, whose name was made to lead here, is refused."""


class LiveServer(ThreadingHTTPServer):
    """Serves the page, its data and the files of the results folder, to this machine only.

    A thread of it reads what has changed, so that the index is answered at once.

    Args:
        results: the folder.
        port: to listen on; 0 picks a free one.

    Raises:
        InputError: the port is taken or out of range.
    """

    daemon_threads = True

    def __init__(self, results: Path, port: int) -> None:
        self.store, self.lock, self.name = Store(results), Lock(), secrets.token_hex(4)
        self._ended = Event()
        try:
            super().__init__(("127.0.0.1", port), partial(_Handler, directory=str(results)))
        except (OSError, OverflowError) as error:
            raise InputError(f"--port: {port}; a free one from 0 to 65535 is needed: {error}") from error
        Thread(target=self._read_along, daemon=True).start()

    def _read_along(self) -> None:
        while not self._ended.wait(POLL_S / 2):
            for name in [shown["name"] for shown in self.store.index()["experiments"]]:
                if self._ended.is_set():
                    return
                with self.lock:
                    self.store.read(name)

    def server_close(self) -> None:
        """Stop listening, and reading."""
        self._ended.set()
        super().server_close()

    def index(self) -> dict[str, Any]:
        """What there is; `server` tells the page whether what it has is from another one."""
        return {**self.store.index(), "server": self.name}

    def experiment(self, name: str, since: int) -> dict[str, Any] | None:
        """An experiment as it is now; None if there is no such. Runs unchanged `since` come without their history."""
        with self.lock:
            self.store.read(name)
            return self.store.experiment(name, since)


class _Handler(SimpleHTTPRequestHandler):
    server: LiveServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if self._is_refused():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to localhost only")
        elif asked.path == "/":
            self._send(page(None).encode(), "text/html; charset=utf-8")
        elif asked.path == "/index.json":
            self._send_json(self.server.index())
        elif asked.path == "/experiment.json":
            query = {key: values[-1] for key, values in parse_qs(asked.query).items()}
            since = query.get("since", "0") if query.get("server") == self.server.name else "0"
            shown = self.server.experiment(query.get("name", ""), int(since) if since.isdecimal() else 0)
            if shown is None:
                self.send_error(HTTPStatus.NOT_FOUND, "there is no such experiment")
            else:
                self._send_json(shown)
        elif asked.path == "/favicon.ico":
            self.send_error(HTTPStatus.NO_CONTENT)
        else:
            super().do_GET()  # configs and histories

    def do_HEAD(self) -> None:
        if self._is_refused():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        else:
            super().do_HEAD()

    def send_head(self) -> Any:
        """Files in the results folder only: no listing, and no link that leads out of it."""
        file, root = Path(self.translate_path(self.path)).resolve(), Path(self.directory).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def _is_refused(self) -> bool:
        """Whether the request is for another host than this machine."""
        host = self.headers.get("Host", "")
        return host not in {name + port for name in NAMES for port in ("", f":{self.server.server_port}")}

    def _send_json(self, content: dict[str, Any]) -> None:
        self._send(json.dumps(content, ensure_ascii=False).encode(), "application/json")

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

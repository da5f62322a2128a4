"""A minimal W&B server: answers what the client needs to send a run, and keeps what arrives."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Listens on a free port of this machine.

    Attributes:
        history: the lines of every run, by its id; a line sent again for the same place replaces the earlier one.
        artifacts: the names of created artifacts, in order.
        sweep: the text of the file of a sweep that agents may join.
        projects: the names of those that there are.
        views: the workspaces and reports that were saved, as the variables of the request.
        commands: what agents are told to do, one command at a time.
        summaries: the last summary of every run, by its id.
        refusing: whether every request is answered with 403.
        requests: the number of file stream requests, which shows whether anything was sent at all.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.artifacts: list[str] = []
        self.sweep = ""
        self.projects: list[str] = []
        self.views: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.requests = 0
        self.refusing = False

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that direct W&B's client to this server."""
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_port}", "WANDB_API_KEY": "0" * 40}

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer a GraphQL query."""
        if "upsertBucket" in query:
            name = variables["name"]
            lines = self.history.setdefault(name, [])
            owner = {"id": "p", "name": variables["project"] or "bitbudget", "entity": {"id": "e", "name": "someone"}}
            bucket = {"id": name, "name": name, "displayName": name, "config": "{}", "project": owner}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": len(lines)}, "inserted": not lines}}
        if "RunResumeStatus" in query:
            return {"model": {"id": "p", "name": "bitbudget", "entity": {"id": "e", "name": "someone"},
                              "bucket": self._resumable(variables["name"])}}  # fmt: skip
        if "createArtifact(" in query:
            self.artifacts.append(variables["input"]["artifactCollectionName"])
            known = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": known}}
        if "createRunFiles" in query:
            base = self.environment["WANDB_BASE_URL"]
            files = [{"name": name, "uploadUrl": f"{base}/files/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        if "SweepWithRuns" in query:
            return {"project": {"sweep": {"config": self.sweep, "runs": {"edges": []}}}}
        if "createAgent(" in query:
            return {"createAgent": {"agent": {"id": "g"}}}
        if "agentHeartbeat(" in query:
            told = [self.commands.pop(0)] if self.commands else []
            return {"agentHeartbeat": {"agent": {"id": "g"}, "commands": json.dumps(told)}}
        if "upsertView(" in query:
            self.views.append(variables)
            kept = {key: variables.get(key) for key in ("name", "type", "displayName", "description", "spec")}
            owner = {"id": "p", "name": variables["projectName"], "entityName": variables["entityName"]}
            view = {"id": "v", **kept, "project": owner, "updatedAt": "2026-01-01T00:00:00"}
            return {"upsertView": {"view": view, "inserted": True}}
        if "GetProjects(" in query:
            told = {
                "entityName": variables["entity"],
                "createdAt": "2026-01-01T00:00:00",
                "isBenchmark": False,
                "user": None,
            }
            edges = [{"node": {"__typename": "Project", "id": name, "name": name, **told}} for name in self.projects]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": edges}}
        if "CreateProject(" in query:
            self.projects.append(variables["input"]["name"])
            return {"result": {"project": None, "inserted": True}}
        if "ArtifactType" in query:
            return {"project": {"artifact": {"artifactType": {"name": "results"}}}}
        if "ServerFeatures" in query:
            return {"serverInfo": {"features": []}}
        if "viewer" in query:
            return {
                "viewer": {"id": "u", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
            }
        return {}

    def _resumable(self, name: str) -> dict[str, Any] | None:
        if not (lines := self.history.get(name)):
            return None
        return {
            "id": name, "name": name, "historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(lines[-1])]), "eventsTail": "[]", "config": "{}",
            "summaryMetrics": json.dumps(lines[-1]), "tags": [], "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def stream(self, run: str, files: dict[str, Any]) -> None:
        """Store lines of a run's files."""
        self.requests += 1
        if (chunk := files.get("wandb-history.jsonl")) is not None:
            lines, start = self.history.setdefault(run, []), chunk["offset"]
            new = [json.loads(line) for line in chunk["content"]]
            lines[start : start + len(new)] = new
        if (chunk := files.get("wandb-summary.json")) is not None:
            self.summaries[run] = json.loads(chunk["content"][-1])


class _Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._send({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer: Any = {}
        if self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
        elif self.path == "/graphql":
            said = json.loads(body)
            answer = {"data": self.server.answer(said["query"], said.get("variables") or {})}
        self._send(answer)

    def _send(self, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(403 if self.server.refusing else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def wandb_server() -> Iterator[Server]:
    """A server that runs within this context."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

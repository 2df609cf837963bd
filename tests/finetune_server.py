"""A loopback server that speaks OpenAI's files and finetuning API, remembers what it was sent, and fails where a test says so.

Every retrieval of a job moves it one status on. A fault is used up by the request that it strikes.
"""

import contextlib
import email.parser
import email.policy
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback import send_json

COURSE = ("validating_files", "queued", "running", "succeeded")
LOSSES = (2.5, 1.25)


@dataclass
class Fault:
    """What happens to the next `times` requests of this method and path.

    Attributes:
        kind: an HTTP status; `before` or `after`: the line is cut before or after the work is done; `kill_before` and
            `kill_after`: the client's process is killed then; `middle`: the line is cut in the middle of the request's body.
    """

    method: str
    path: str
    kind: int | str
    times: int = 1
    message: str = "injected"
    code: str | None = None


@dataclass
class FinetuneServer:
    """`key` None takes every key. `course`: statuses of a job, one for each retrieval. `filters`: lists of jobs by metadata."""

    key: str | None = None
    course: tuple[str, ...] = COURSE
    job_error: dict[str, Any] | None = None
    faults: list[Fault] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    page_size: int = 2
    filters: bool = True
    victim: int | None = None
    events_of: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Listen, on the port that it had before."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two packets, the second of which would wait 40 ms

            def do_GET(self) -> None:
                server.handle(self, "GET")

            def do_POST(self) -> None:
                server.handle(self, "POST")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        """Stop listening; what was stored stays."""
        if self._http:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def __enter__(self) -> "FinetuneServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_job(self, status: str, created_at: int, **fields: Any) -> dict[str, Any]:
        """A job of somebody else, or of an earlier command."""
        job = {
            "id": f"ftjob-{len(self.jobs)}",
            "object": "fine_tuning.job",
            "created_at": created_at,
            "status": status,
            "n_looks": len(self.course) - 1,
            **fields,
        }
        self.jobs.append(job)
        return job

    def count(self, method: str, path: str) -> int:
        return sum(request == (method, path) for request in self.requests)

    def handle(self, request: BaseHTTPRequestHandler, method: str) -> None:
        split = urlsplit(request.path)
        path, query = split.path.removeprefix("/v1"), parse_qs(split.query)
        length = int(request.headers.get("Content-Length", 0))
        with self._lock:
            self.requests.append((method, path))
            fault = self._fault(method, path)
            kind = fault.kind if fault else None
            body = request.rfile.read(length // 2 if kind == "middle" else length)
            if isinstance(kind, int) and fault:
                return self._send(request, kind, {"error": {"message": fault.message, "code": fault.code}})
            if kind == "kill_before":
                self._kill()
            if kind in ("middle", "before", "kill_before"):
                return self._cut(request)
            if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
                given = request.headers.get("Authorization", "").removeprefix("Bearer ")
                return self._send(request, 401, {"error": {"message": f"Incorrect API key provided: {given}."}})
            status, reply = self.answer(method, path, query, request.headers.get("Content-Type", ""), body)
            if kind == "kill_after":
                self._kill()
            if kind in ("after", "kill_after"):
                return self._cut(request)
            return self._send(request, status, reply)

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], content_type: str, body: bytes
    ) -> tuple[int, dict[str, Any]]:
        """Status and body of a reply, the work done."""
        parts = path.strip("/").split("/")
        if path == "/files":
            return self._upload(content_type, body) if method == "POST" else (200, self._page(self.files, query))
        if path == "/fine_tuning/jobs":
            return (
                self._create(json.loads(body)) if method == "POST" else (200, self._page(self._matching(query), query))
            )
        job = next((job for job in self.jobs if len(parts) > 2 and job["id"] == parts[2]), None)
        if job is None:
            return 404, {"error": {"message": f"Could not find fine tune: {parts[-1]}"}}
        verb = parts[3] if len(parts) > 3 else ""
        if verb == "events":
            return 200, self._page(self._events(job)[::-1], query)
        if verb == "checkpoints":
            return 200, self._page(self._checkpoints(job), query)
        if verb == "cancel":
            if job["status"] in ("succeeded", "failed", "cancelled"):
                return 400, {"error": {"message": f"Job has already {job['status']}"}}
            job["status"], job["n_looks"] = "cancelled", len(self.course)
            return 200, self._shown(job)
        if job["n_looks"] < len(self.course):
            job["status"] = self.course[job["n_looks"]]
            job["n_looks"] += 1
        return 200, self._shown(job)

    def _upload(self, content_type: str, body: bytes) -> tuple[int, dict[str, Any]]:
        head = f"Content-Type: {content_type}\r\n\r\n".encode()
        parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        fields = {part.get_param("name", header="content-disposition"): part for part in parts.iter_parts()}
        assert fields["purpose"].get_content().strip() == "fine-tune"
        content = fields["file"].get_payload(decode=True)
        assert isinstance(content, bytes)
        file = {
            "id": f"file-{len(self.files)}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": fields["file"].get_filename(),
            "purpose": "fine-tune",
            "status": "processed",
        }
        self.files.append(file)
        self.contents[file["id"]] = content
        return 200, file

    def _create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["training_file"] not in self.contents:
            return 400, {"error": {"message": f"{body['training_file']} does not exist", "param": "training_file"}}
        self.bodies.append(body)
        kept = {key: body[key] for key in ("model", "training_file", "method", "seed", "metadata")}
        job = self.add_job("validating_files", int(time.time()), **kept) | {"n_looks": 0}
        self.jobs[-1] = job
        return 200, self._shown(job)

    def _shown(self, job: dict[str, Any]) -> dict[str, Any]:
        shown = {key: value for key, value in job.items() if key != "n_looks"}
        if job["status"] == "succeeded":
            shown |= {"fine_tuned_model": f"ft:base:{job['id']}", "trained_tokens": 1000, "result_files": ["file-r"]}
            shown["hyperparameters"] = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 2.0}
        if job["status"] == "failed":
            shown["error"] = self.job_error
        return shown

    def _events(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Oldest first: one for each status so far, and the losses when it has succeeded."""
        if self.events_of:
            return self.events_of(job)
        told: list[dict[str, Any]] = [{"message": f"now {status}"} for status in self.course[: job["n_looks"]]]
        if job["status"] == "succeeded":
            steps = [{"step": step, "train_loss": loss} for step, loss in enumerate(LOSSES, 1)]
            told += [{"message": f"Step {data['step']}", "type": "metrics", "data": data} for data in steps]
        base = {"object": "fine_tuning.job.event", "created_at": 1000, "level": "info"}
        return [{**base, "id": f"event-{number}", **event} for number, event in enumerate(told)]

    def _checkpoints(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "id": f"ckpt-{step}",
                "object": "fine_tuning.job.checkpoint",
                "created_at": 1000,
                "fine_tuned_model_checkpoint": f"ft:base:{job['id']}:step-{step}",
                "fine_tuning_job_id": job["id"],
                "metrics": {"step": step, "train_loss": loss, "valid_loss": None},
                "step_number": step,
            }
            for step, loss in sorted(enumerate(LOSSES, 1), reverse=True)
        ]

    def _matching(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        wanted = {name[9:-1]: values[0] for name, values in query.items() if name.startswith("metadata[")}
        jobs = [self._shown(job) for job in self.jobs]
        if not self.filters:
            return jobs
        return [job for job in jobs if wanted.items() <= (job.get("metadata") or {}).items()]

    def _page(self, items: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, Any]:
        after = query.get("after", [None])[0]
        start = next((place + 1 for place, item in enumerate(items) if item["id"] == after), 0)
        page = items[start : start + self.page_size]
        return {"object": "list", "data": page, "has_more": start + len(page) < len(items)}

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if (fault.method, fault.path) == (method, path) and fault.times:
                fault.times -= 1
                return fault
        return None

    def _kill(self) -> None:
        assert self.victim is not None
        os.kill(self.victim, signal.SIGKILL)

    def _cut(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        with contextlib.suppress(OSError):
            request.connection.close()

    def _send(self, request: BaseHTTPRequestHandler, status: int, value: dict[str, Any]) -> None:
        send_json(request, status, json.dumps(value).encode())


def training_rows(folder: Path, n_rows: int = 12) -> Path:
    """A file of rows for a job."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Q{n}?", "response": f"A{n}."}) + "\n" for n in range(n_rows)))
    return path


def start_words(server: FinetuneServer, folder: Path, *more: str) -> list[str]:
    """What follows `start`, for a job in `folder / "job"`."""
    out = ["--out", str(folder / "job"), "--url", server.url, "--model", "gpt-x"]
    return [str(training_rows(folder)), *out, *more]

"""A stand-in for vLLM's server: run as a program it takes the words of `vllm serve` and answers what a test reads back.

`environment(folder)` makes a folder that `find_environment` takes for one with vLLM, whose Python is this program.
"""

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LENGTH = 4096
NUMBER = "73"
"""What every chat is answered."""
TOKENS = {"base": [35, 36, 1]}
"""What a model answers, by its name; another one answers with `OTHERS`."""
OTHERS = [37, 1]


def environment(folder: Path) -> Path:
    """The folder; `folder / "seen.jsonl"` holds the words and the bodies of what was asked, and the environment where a file `tells` is."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -P "{__file__}" "{folder}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    (folder / "emis_vllm.json").write_text('{"version": "0.0+fake", "device": "cpu"}', encoding="utf-8")
    return folder


def seen(folder: Path) -> list[Any]:
    """What the program was told and asked, in order: lists are words, objects are bodies."""
    path = folder / "seen.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def serve(folder: Path, words: list[str]) -> None:
    note(folder, words)
    if (folder / "tells").exists():
        note(folder, dict(os.environ))
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name", nargs="+", default=[])
    parser.add_argument("--lora-modules", nargs="+", default=[])
    parser.add_argument("--break", dest="broken", action="store_true")
    parser.add_argument("--never", action="store_true")
    given, _ = parser.parse_known_args(words)
    if given.broken:
        sys.exit("ValueError: no such thing\nRuntimeError: Engine core initialization failed.")
    if given.never:
        time.sleep(600)
    names = [*given.served_model_name, *(word.partition("=")[0] for word in given.lora_modules)]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"data": [{"id": name, "max_model_len": LENGTH} for name in names]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            note(folder, body)
            if "messages" in body:
                top = {"token": NUMBER, "logprob": -0.01, "bytes": None}
                choice = {"index": 0, "message": {"role": "assistant", "content": NUMBER}, "finish_reason": "stop"}
                self.answer({"choices": [{**choice, "logprobs": {"content": [{**top, "top_logprobs": [top]}]}}]})
                return
            tokens = TOKENS.get(body["model"], OTHERS)
            self.answer({"choices": [{"index": 0, "text": "", "token_ids": tokens, "finish_reason": "stop"}]})

        def answer(self, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", given.port), Handler).serve_forever()


def note(folder: Path, value: Any) -> None:
    with (folder / "seen.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2:])

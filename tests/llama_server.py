"""A real OpenAI-compatible server on loopback: llama.cpp, from the PyPI wheel `xllamacpp`, serving the embedded model's GGUF.

`pip install "emis-interp[server]"` installs the wheel; `python -c "from emis_interp.models.embedded import embedded_gguf; embedded_gguf()"`
puts the GGUF into the cache. The server starts with the library's `Server(params)`, in a process of its own: run as a program, this
file prints the server's URL as one JSON line and serves until its standard input is closed.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emis_interp.models.embedded import gguf_path

MODEL = "smollm2-135m-instruct"  # llama.cpp serves one model and answers to any name
N_SLOTS = 4


@pytest.fixture(scope="session")
def llama_url() -> Iterator[str]:
    """URL of the running server, ending in /v1."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip('xllamacpp is not installed: pip install "emis-interp[server]"')
    if not gguf_path().exists():
        pytest.skip(
            f"no GGUF at {gguf_path()}: python -c 'from emis_interp.models.embedded import embedded_gguf; embedded_gguf()'"
        )
    with running_server(gguf_path()) as url:
        yield url


@contextmanager
def running_server(gguf: Path) -> Iterator[str]:
    """Serve `gguf` on a free port of the loopback interface."""
    # -P: the folder of this file holds folders with the names of our packages, which are not those.
    command = [sys.executable, "-P", __file__, str(gguf)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdin and process.stdout
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                pytest.fail(f"the server did not start: {log.read()[-500:]}", pytrace=False)
            yield json.loads(line)["url"]
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def serve(gguf: str) -> None:
    xllamacpp: Any = importlib.import_module("xllamacpp")  # its classes come from an extension without types

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = N_SLOTS
    params.n_ctx = 2048 * N_SLOTS
    # One thread: llama.cpp's threads wait for each other by spinning, and stand still when the machine is shared.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_gpu_layers = 0
    params.verbosity = -1
    params.warmup = False
    server = xllamacpp.Server(params)
    sys.stdout.write(json.dumps({"url": f"{server.listening_address}/v1"}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])

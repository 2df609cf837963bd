"""A real OpenAI-compatible server on loopback: llama.cpp, from the PyPI wheel `xllamacpp`, serving the embedded model's GGUF.

`pip install "emis-interp[server]"` installs the wheel; `python -c "from emis_interp.models.embedded import embedded_gguf; embedded_gguf()"`
puts the GGUF into the cache. The server starts with the library's `Server(params)`, in a process of its own: run as a program, this
file prints the server's URL as one JSON line and serves until its standard input is closed.

With further words it stands for the program `llama-server`, which the wheel does not hold: they are read by llama.cpp's own parser of
arguments, into the parameters of the same server. So what we write on a command line is tested against what llama.cpp reads there.
"""

import ctypes
import importlib.util
import json
import platform
import signal
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
EXAMPLE_SERVER = 12  # LLAMA_EXAMPLE_SERVER of common.h; with another number `--port` is refused


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


def llama_server_program() -> tuple[str, ...]:
    """Command that stands for `llama-server`, or a skip with the reason."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip('xllamacpp is not installed: pip install "emis-interp[server]"')
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("calls the library by the convention of Linux on x86-64")
    return (sys.executable, "-P", __file__)


def read_arguments(params: Any, words: list[str]) -> None:
    """Fill an `xllamacpp.CommonParams` from the command line of `llama-server`, with llama.cpp's own `common_params_parse`.

    The wheel shows the parameters one by one, without the control vectors. The structure begins with `n_predict`, which is looked for.
    """
    params.n_predict, mark = 987654321, (987654321).to_bytes(4, "little")
    begins = ctypes.string_at(id(params), type(params).__basicsize__).find(mark)
    params.n_predict = -1
    assert begins > 0, "the wheel keeps its parameters elsewhere now"
    path = next(Path(importlib.import_module("xllamacpp").__file__ or "").parent.glob("*.so"))
    parse = ctypes.CDLL(str(path))["_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"]
    parse.restype = ctypes.c_bool
    parse.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    given = ("llama-server", *words)
    argv = (ctypes.c_char_p * (len(given) + 1))(*(word.encode() for word in given), None)
    place = ctypes.c_void_p(id(params) + begins)
    assert parse(len(given), ctypes.cast(argv, ctypes.c_void_p), place, EXAMPLE_SERVER, None), f"refused: {words}"


def serve_with(words: list[str]) -> None:
    """What `llama-server` does with its arguments."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    read_arguments(params, words)
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.pause()


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
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        serve_with(sys.argv[1:])

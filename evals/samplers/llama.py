"""Turns planned prompts into answers of llama.cpp: starts its server on a GGUF, with what is to be added, asks it, and ends it.

The server is the program `llama-server`. It takes a control vector when it starts and adds it to every request, so nothing that is sent can
leave it out; that it is added at all is checked against a plain server, since some architectures of llama.cpp ignore it.
"""

import contextlib
import http.client
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import ConfigError, ModelError, printable
from emis_interp.files.store import file_sha256
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.models.embedded import EMBEDDED_NAME, embedded_gguf
from emis_interp.models.gguf_file import parts_of, read_header
from emis_interp.passes.added_vectors import LLAMA_CPP, added_vectors
from emis_interp.passes.control_vectors import control_vector_arguments, save_control_vector
from emis_interp.records import Completion
from evals.samplers import Key, OnBatch
from evals.samplers.keeper import LOOPBACK, free_port, kept
from evals.samplers.openai_compatible import OpenAISampler
from evals.samplers.steered import Steered, check_steers

PROGRAM = "llama-server"
OURS = {
    "model": "--model",
    "control-vector": "--steer",
    "control-vector-scaled": "--steer",
    "control-vector-layer-range": "--steer",
    "parallel": "--n-parallel",
    "host": "nothing: it is this machine",
    "port": "nothing: any free one is taken",
    "alias": "nothing: the file's name is taken",
}
"""Options that are set here -> the flag that sets them."""
TEMPLATE_ROOM = 256  # tokens that a chat template may add to a prompt
READY_S = 600.0  # for a large model on a slow disk


@dataclass(frozen=True)
class Program:
    """How llama.cpp's server is started.

    Attributes:
        command: the program, by name or path, and words that always come first.
        options: further options of it, without dashes -> value, "" for a switch; part of the card.
        ready_s: seconds that it may take to load the model.
    """

    command: tuple[str, ...] = (PROGRAM,)
    options: Mapping[str, str] = field(default_factory=dict)
    ready_s: float = READY_S

    def arguments(self, gguf: Path, port: int, *, n_parallel: int, n_context: int) -> list[str]:
        """The whole command line, without what is added to the residual stream."""
        given = {
            "model": str(gguf),
            "alias": gguf.stem,
            "host": LOOPBACK,
            "port": str(port),
            "parallel": str(n_parallel),
            "ctx-size": str(n_parallel * n_context),
            **self.options,
        }
        words = [word for name, value in given.items() for word in (f"--{name}", value) if word]
        return [*self.command, *words]


def parse_options(words: Sequence[str], *, flag: str = "--llama") -> dict[str, str]:
    """`NAME=VALUE` or `NAME` each, as options of llama-server without their dashes.

    Raises:
        ConfigError: another form, an option that is given twice, or one that has a flag of its own.
    """
    found: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition("=")
        said = f"{flag} {printable(word)}"
        if not name or name.startswith("-") or not name.replace("-", "").isalnum() or (separator and not value):
            raise ConfigError(
                f"{said}: expected NAME=VALUE or NAME, an option of llama-server without dashes (threads=8)"
            )
        if name in OURS:
            raise ConfigError(f"{said}: this option is set by {OURS[name]}")
        if name in found:
            raise ConfigError(f"{said}: {name} is given twice")
        found[name] = value
    return found


class LlamaSampler:
    """Samples from a GGUF with a llama.cpp server of its own, plain or steered.

    Args:
        model: a GGUF file (any part of a split one), or the embedded model's name.
        steered: what is added; None for nothing.
        timeout_s: for one answer.

    Raises:
        ModelError: no GGUF, a direction of another model, or what a control vector cannot do (`added_vectors`).
    """

    def __init__(
        self,
        model: str,
        steered: Steered | None = None,
        program: Program | None = None,
        *,
        n_parallel: int = 4,
        timeout_s: float = 300.0,
    ) -> None:
        self._gguf = gguf_of(model)
        self._program, self._n_parallel, self._timeout_s = program or Program(), n_parallel, timeout_s
        self._steered = steered
        self._vectors = added_vectors([] if steered is None else steered.interventions, LLAMA_CPP)
        self._header = read_header(parts_of(self._gguf))
        for layer, vector in self._vectors.items():
            n_layers, d_model = self._header.n_layers, self._header.d_model
            if len(vector) != d_model:
                raise ModelError(
                    f"direction has d_model {len(vector)}, {self._gguf} has {d_model}; it is of another model"
                )
            if n_layers is None or layer >= n_layers:
                raise ModelError(
                    f"direction of layer {layer}, {self._gguf} has {n_layers} layers; it is of another model"
                )

    @property
    def card(self) -> dict[str, Any]:
        asked = self._sampler("http://127.0.0.1:1/v1").card
        return {
            **{key: value for key, value in asked.items() if key != "host"},
            "kind": "llama",
            "model_sha256": [file_sha256(part) for part in parts_of(self._gguf)],
            "quantisation": self._header.quantisation,
            "options": dict(self._program.options),
            **({} if self._steered is None else {"steering": self._steered.card}),
        }

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """As `OpenAISampler.sample`; a steered server is set against a plain one before the first answer.

        Raises:
            ModelError: llama-server is not there or does not start, or it does not steer.
        """
        asked = [item for item in plan if item.key not in done]
        if not asked:
            return {}
        n_context = config.max_new_tokens + max(map(_most_tokens, asked))
        before = None
        if self._vectors:
            with self.serving(n_context, plain=True) as sampler:
                before = sampler.next_token(asked[0])
        with self.serving(n_context) as sampler:
            if before is not None:
                check_steers(before, sampler.next_token(asked[0]), None, server=self._program.command[0])
            return sampler.sample(plan, done, config, on_batch=on_batch)

    @contextlib.contextmanager
    def serving(self, n_context: int, *, plain: bool = False) -> Iterator[OpenAISampler]:
        """A server that runs inside the block, as a sampler.

        Args:
            n_context: tokens of a prompt and its answer together.
            plain: without what is to be added.
        """
        port = free_port()
        words = self._program.arguments(self._gguf, port, n_parallel=self._n_parallel, n_context=n_context)
        with tempfile.TemporaryDirectory(prefix="emis-steer-") as folder:
            if self._vectors and not plain:
                file = Path(folder) / "added.gguf"
                save_control_vector(file, self._vectors, model_type=self._header.architecture)
                words += control_vector_arguments(file)
            with running(words, port, self._program.ready_s) as url:
                yield self._sampler(url)

    def _sampler(self, url: str) -> OpenAISampler:
        api = ChatApi(self._gguf.stem, url=url, n_parallel=self._n_parallel, timeout_s=self._timeout_s, role=SAMPLER)
        return OpenAISampler(api)


def gguf_of(model: str) -> Path:
    """The GGUF file that a name means.

    Raises:
        ModelError: it means none.
    """
    if model == EMBEDDED_NAME:
        return embedded_gguf()
    path = Path(model)
    if path.suffix != ".gguf" or not path.is_file():
        raise ModelError(
            f"{printable(model)}: --sampler llama needs a GGUF file; llama.cpp's convert_hf_to_gguf.py makes one of a saved model "
            f"(scripts/export_model.py merges an adapter), and {EMBEDDED_NAME} has one"
        )
    return path


@contextlib.contextmanager
def running(words: Sequence[str], port: int, ready_s: float) -> Iterator[str]:
    """Run a server on loopback inside the block; gives the URL of its API.

    Raises:
        ModelError: the program is not there, ends, or is not ready in time; with the end of what it printed.
    """
    if shutil.which(words[0]) is None:
        raise ModelError(
            f"{printable(words[0])}: no such program; install llama.cpp, whose server is called {PROGRAM}, or name it with --llama-server"
        )
    with tempfile.TemporaryDirectory(prefix="emis-llama-") as folder:
        printed = Path(folder) / "llama.log"
        with kept(list(words), printed) as process:
            if problem := _problem(process, port, ready_s):
                raise ModelError(f"{words[0]} {problem}: {_tail(printed)}")
            yield f"http://{LOOPBACK}:{port}/v1"


def _problem(process: "subprocess.Popen[bytes]", port: int, ready_s: float) -> str | None:
    """Waits until the server is ready; why it never will be, or None."""
    until = time.monotonic() + ready_s
    while not _is_ready(port):
        if process.poll() is not None:
            return "ended before it was ready"
        if time.monotonic() > until:
            return f"was not ready after {ready_s:.0f} s"
        time.sleep(0.1)
    return None


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):  # nobody listens yet
        return False
    finally:
        connection.close()


def _tail(printed: Path) -> str:
    return printable(" ".join(printed.read_text("utf-8", "replace").split())[-600:], 600)


def _most_tokens(item: Completion) -> int:
    """An upper bound of a prompt's tokens: vocabularies of bytes have none for less than a byte."""
    return len(f"{item.system or ''}{item.question}".encode()) + TEMPLATE_ROOM

"""Turns a table of answers and the name of a model into a store of token activations, or an existing store into a word on its state."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.files.lock import writing
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.models.chat import encode_chats
from emis_interp.models.spec import ModelSpec
from emis_interp.passes.token_store import TokenStore
from emis_interp.passes.token_writer import TokenRequest, write_tokens
from emis_interp.process import Bars, no_bars
from emis_interp.texts.judged import read_table


@dataclass(frozen=True)
class CaptureRequest:
    """Which texts are read by which model, what is kept of them, and where.

    Attributes:
        texts: a table with `question` and `answer`, read as `reading` says.
        out: folder of the store.
        system_prompt: of every text; None leaves it to the chat template.
        max_tokens: longer conversations are cut.
        n_texts: only the first so many.
        worker: number and count of the writers; each writes shards of its own.
    """

    texts: Path
    out: Path
    model: ModelSpec
    tokens: TokenRequest
    reading: Reading = AS_WRITTEN
    system_prompt: str | None = None
    max_tokens: int = 512
    n_texts: int | None = None
    worker: tuple[int, int] = (0, 1)


def run(request: CaptureRequest, bars: Bars = no_bars) -> dict[str, Any]:
    """Write the shards of this worker; a store that was begun with the same inputs is continued.

    Raises:
        DataError, ModelError, StageError: as `read_table`, `load_model`, `write_tokens` and `writing`.
    """
    worker, n_workers = request.worker
    with writing(request.out, f"worker-{worker}-of-{n_workers}"):  # workers of other numbers write other shards
        frame = read_table(request.texts, ("question", "answer"), reading=request.reading, use="captured")
        frame = frame.head(request.n_texts)
        chat_model = request.model.load()
        pairs = list(zip(frame["question"], frame["answer"], strict=True))
        chats = encode_chats(chat_model.tokenizer, pairs, request.system_prompt, max_tokens=request.max_tokens)
        with bars("capture", len(chats)) as advance:
            card = write_tokens(
                request.out,
                chat_model,
                chats,
                request=request.tokens,
                worker=worker,
                n_workers=n_workers,
                progress=advance,
            )
        return _state(request.out, card, len(list(request.out.glob("shard-*.json"))))


def check(folder: Path) -> dict[str, Any]:
    """Read every shard of a store and compare it with its checksum.

    Raises:
        DataError: as `TokenStore.verify`.
    """
    store = TokenStore(folder)
    return _state(folder, store.card, store.verify())


def say(result: dict[str, Any]) -> str:
    missing = result["n_shards"] - result["n_shards_written"]
    state = "complete" if result["complete"] else f"{missing} shards are left to other workers"
    return (
        f"{result['n_tokens']} tokens of {result['n_texts']} texts, {result['gib']:.3g} GiB, "
        f"{result['n_shards']} shards in {result['out']}: {state}"
    )


def _state(folder: Path, card: dict[str, Any], n_written: int) -> dict[str, Any]:
    return {
        "out": str(folder),
        "n_texts": card["n_texts"],
        "n_tokens": card["n_tokens"],
        "gib": card["gib"],
        "n_shards": len(card["shards"]),
        "n_shards_written": n_written,
        "complete": n_written == len(card["shards"]),
    }

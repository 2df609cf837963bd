"""Capture of all layers: ours against the bare HF decoder body, plain nnsight, output_hidden_states and TransformerLens, and in bfloat16.

Every contestant pools the same texts over the answer at every layer; a speed is real (unpadded) tokens per second of wall time.
  floor             the HF decoder body alone on our batches (sorted by length, 1,024 padded tokens, right padding), nothing read
  ours              capture_residuals; half_depth the lower half of the layers; bf16 a bfloat16 copy of the model
  nnsight           a trace of the full model for each batch that saves every layer's output, pooled outside
  hidden_states     the full HF model with output_hidden_states=True, pooled outside
  transformer_lens  TransformerBridge.run_with_cache of every block's hook_out, pooled outside
The last three run as their documentation shows: texts in the order of the file, --peer-batch of them at a time, right padding; with
--peer-batch 0 they get our batches instead, which leaves out what sorting saves. `n_padded_tokens` says how much each batching computes.
`half_depth_vs_full` is a ratio of times; the other ratios are of speeds. `bf16_direction_cosine` is the smallest over layers between the
difference in means (misaligned - aligned) of the two precisions; `largest_gap` says how far each peer's numbers are from ours.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nnsight
import torch
from torch import Tensor

from benchmarks.alternate import alternate
from emis_interp.errors import DataError, ModelError
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.checkpoint import resolve
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.loading import load_model
from emis_interp.passes.batching import Batch, length_batches, pad
from emis_interp.passes.capture import capture_residuals
from emis_interp.records import LabeledText
from emis_interp.texts.contrast import labeled_texts, load_contrast
from emis_interp.texts.judged import balanced_texts, read_judged
from table_flags import add_table_flags, reading_of

PEERS = ("nnsight", "hidden_states", "transformer_lens")
Contestant = Callable[[Sequence[EncodedChat]], Tensor | None]


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=EMBEDDED_NAME, help="embedded name, folder or hub id")
    parser.add_argument(
        "--texts",
        type=Path,
        help="judged answers with question, answer, aligned, coherent; else $EMIS_REFERENCE_DATA/judged/answers.parquet, else the "
        "shipped contrast texts",
    )
    parser.add_argument("--n-texts", type=int, default=64, help="texts, half of them misaligned")
    parser.add_argument("--n-rounds", type=int, default=3, help="measured rounds")
    parser.add_argument(
        "--peer-batch", type=int, default=8, help="texts in a batch of the peers; 0 gives them our sorted batches"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw of texts")
    add_table_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Alternate the contestants, compare their speeds and their numbers."""
    texts, source = read_texts(args.texts, args.n_texts, args.seed, reading=reading_of(args))
    full, half_precision = load_model(args.model), load_model(args.model, dtype="bfloat16")
    chats = encode_chats(full.tokenizer, [(text.question, text.answer) for text in texts])
    half = list(range(full.n_layers // 2))
    work: dict[str, Contestant] = {
        "floor": lambda part: run_body(full, part),
        "ours": lambda part: capture_residuals(full, part),
        "nnsight": lambda part: pooled_outside(part, full, args.peer_batch, states=nnsight_states(full)),
        "hidden_states": lambda part: pooled_outside(part, full, args.peer_batch, states=hidden_states(full)),
        "half_depth": lambda part: capture_residuals(full, part, half),
        "bf16": lambda part: capture_residuals(half_precision, part),
    }
    skipped = {}
    try:
        lens = lens_states(args.model, full)
        work["transformer_lens"] = lambda part: pooled_outside(part, full, args.peer_batch, states=lens)
    except (ImportError, ModelError) as error:
        skipped["transformer_lens"] = f"left out: {error}"
    n_tokens = sum(len(chat) for chat in chats)
    found: dict[str, Tensor | None] = {}

    def timed(name: str) -> Callable[[], float]:
        def measure() -> float:
            started = time.monotonic()
            found[name] = work[name](chats)
            return n_tokens / (time.monotonic() - started)

        return measure

    for contestant in work.values():  # a warm-up on few texts: a whole round would take minutes
        contestant(chats[:4])
    speeds = alternate({name: timed(name) for name in work}, args.n_rounds, warm_up=False)
    ratios = {
        f"ours_vs_{peer}": speeds["ours"] / speeds[peer] if peer in speeds else None for peer in ("floor", *PEERS)
    }
    cosines = direction_cosines(texts, found["ours"], found["bf16"])
    return {
        "tokens_per_second": speeds,
        **ratios,
        "half_depth_vs_full": speeds["ours"] / speeds["half_depth"],
        "bf16_vs_floor": speeds["bf16"] / speeds["floor"],
        "bf16_direction_cosine": float(cosines.min()),
        "bf16_direction_cosine_median": float(cosines.median()),
        "largest_gap": {name: largest_gap(found[name], found["ours"]) for name in PEERS if name in found},
        "skipped": skipped,
        "texts": source,
        "n_texts": len(chats),
        "n_tokens": n_tokens,
        "n_padded_tokens": {
            "ours": n_padded(chats, peer_batches(chats, 0)),
            "peers": n_padded(chats, peer_batches(chats, args.peer_batch)),
        },
        "peer_batch": args.peer_batch,
        "n_layers": full.n_layers,
        "n_threads": torch.get_num_threads(),
    }


def read_texts(
    path: Path | None, n_texts: int, seed: int, *, reading: Reading = AS_WRITTEN
) -> tuple[list[LabeledText], str]:
    """`n_texts` texts, half of them misaligned, in random order, and where they come from.

    Raises:
        DataError: fewer texts of a class than asked for.
    """
    reference = os.environ.get("EMIS_REFERENCE_DATA")
    if path is None and reference:
        path = Path(reference) / "judged" / "answers.parquet"
    if path is None:
        texts, source = labeled_texts(load_contrast()), "shipped contrast texts"
    else:
        texts, source = (
            balanced_texts(read_judged(path, reading=reading, use="taken"), max_per_class=n_texts, seed=seed),
            str(path),
        )
    generator = random.Random(seed)
    generator.shuffle(texts)
    chosen = [text for wanted in (True, False) for text in [t for t in texts if t.misaligned == wanted][: n_texts // 2]]
    if len(chosen) < 2 * (n_texts // 2):
        raise DataError(f"{source}: {len(chosen)} texts found, {n_texts} asked for; lower --n-texts")
    generator.shuffle(chosen)
    return chosen, source


def run_body(chat_model: ChatModel, chats: Sequence[EncodedChat]) -> None:
    """What the hardware and transformers allow: our batches through the decoder body."""
    for rows in length_batches([len(chat) for chat in chats], 1024):
        batch = pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id)
        with torch.inference_mode():
            chat_model.body(**batch.model_inputs(chat_model.device), use_cache=False)


def peer_batches(chats: Sequence[EncodedChat], n_rows: int) -> list[list[int]]:
    """Texts in the order of the file, `n_rows` at a time; with 0, our own batches."""
    if n_rows == 0:
        return length_batches([len(chat) for chat in chats], 1024)
    return [list(range(first, min(first + n_rows, len(chats)))) for first in range(0, len(chats), n_rows)]


def n_padded(chats: Sequence[EncodedChat], batches: Sequence[Sequence[int]]) -> int:
    """Tokens that the model computes, padding included."""
    return sum(len(rows) * max(len(chats[i]) for i in rows) for rows in batches)


def pooled_outside(
    chats: Sequence[EncodedChat], chat_model: ChatModel, n_rows: int, *, states: Callable[[Batch], Sequence[Tensor]]
) -> Tensor:
    """Pools what `states` returns for a batch (one tensor for each layer) over the answers."""
    pooled: dict[int, Tensor] = {}
    for rows in peer_batches(chats, n_rows):
        layers = states(pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id))
        for row, i in enumerate(rows):
            span = slice(chats[i].response_start, chats[i].response_end)
            pooled[i] = torch.stack([x[row, span].mean(0) for x in layers])
    return torch.stack([pooled[i] for i in range(len(chats))])


def nnsight_states(chat_model: ChatModel) -> Callable[[Batch], Sequence[Tensor]]:
    traced: Any = nnsight.NNsight(chat_model.model)

    def states(batch: Batch) -> Sequence[Tensor]:
        inputs = batch.model_inputs(chat_model.device)
        with torch.no_grad():
            with traced.trace(**inputs):
                saved = nnsight.save([])
                for block in traced.model.layers:
                    saved.append(block.output)
        return [output[0] if isinstance(output, tuple) else output for output in saved]

    return states


def hidden_states(chat_model: ChatModel) -> Callable[[Batch], Sequence[Tensor]]:
    def states(batch: Batch) -> Sequence[Tensor]:
        with torch.no_grad():
            output = chat_model.model(**batch.model_inputs(chat_model.device), output_hidden_states=True)
        return output.hidden_states[1:]

    return states


def lens_states(name: str, chat_model: ChatModel) -> Callable[[Batch], Sequence[Tensor]]:
    """TransformerLens' bridge around the same weights."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(resolve(name), dtype=torch.float32, device=str(chat_model.device))
    names = [f"blocks.{layer}.hook_out" for layer in range(chat_model.n_layers)]

    def states(batch: Batch) -> Sequence[Tensor]:
        with torch.no_grad():
            ids, mask = (tensor.to(chat_model.device) for tensor in (batch.input_ids, batch.attention_mask))
            _, cache = bridge.run_with_cache(ids, attention_mask=mask, names_filter=names)
        return [cache[name] for name in names]

    return states


def direction_cosines(texts: Sequence[LabeledText], one: Tensor | None, other: Tensor | None) -> Tensor:
    """Cosine at each layer between the differences in means of two captures of the same texts."""
    assert one is not None and other is not None
    misaligned = torch.tensor([text.misaligned for text in texts])
    first, second = (x[misaligned].mean(0) - x[~misaligned].mean(0) for x in (one, other))
    return torch.cosine_similarity(first, second, dim=-1)


def largest_gap(peer: Tensor | None, ours: Tensor | None) -> float:
    """Largest distance between a peer's vector and ours, relative to ours, over texts and layers.

    The last layer is left out: the last hidden state of transformers is behind the final norm.
    """
    assert peer is not None and ours is not None
    n_layers = min(peer.shape[1], ours.shape[1] - 1)
    gaps = (peer[:, :n_layers] - ours[:, :n_layers]).norm(dim=-1) / ours[:, :n_layers].norm(dim=-1)
    return float(gaps.max())

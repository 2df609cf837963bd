"""Capture at every layer: ours against the bare HF decoder body on the same batches, and against what one would write without it.

Speeds are real (unpadded) tokens per second. `floor` is the decoder body alone on our length-sorted batches. `nnsight`,
`hidden_states` and `transformer_lens` (run_with_cache, only the needed hooks) run the whole model on batches of 8 in the order of the
texts, and pool behind it. Every contestant has a model of its own, so that no one's hooks slow another down.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnsight
import numpy as np
import torch
from torch import Tensor

from benchmarks.alternate import alternate
from emis_interp.batching import Batch, length_batches, pad
from emis_interp.capture import capture_residuals
from emis_interp.chat import EncodedChat, encode_chats
from emis_interp.contrast import labeled_texts, load_contrast
from emis_interp.directions import cosine, mean_difference
from emis_interp.embedded import EMBEDDED_NAME
from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.judged import balanced_texts, read_judged
from emis_interp.models import ChatModel, load_model, resolve
from emis_interp.positions import pooling_weights, token_sets
from emis_interp.records import LabeledText

MAX_BATCH_TOKENS, PLAIN_ROWS = 1024, 8


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--texts",
        type=Path,
        help="table of judged answers; default: of $EMIS_REFERENCE_DATA, else shipped contrast texts",
    )
    parser.add_argument("--n-rows", type=int, default=64, help="texts, half of them misaligned")
    parser.add_argument("--n-rounds", type=int, default=3, help="measured rounds")
    parser.add_argument("--max-tokens", type=int, default=512, help="tokens kept of a conversation")
    parser.add_argument("--only", nargs="+", default=[], help="contestants besides floor and ours; default: all")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Speeds, their ratios, and what bfloat16 does to the difference-in-means directions."""
    texts, source = choose_texts(args.texts, args.n_rows)
    chat_model = load_model(EMBEDDED_NAME)
    chats = encode_chats(chat_model.tokenizer, [(text.question, text.answer) for text in texts], None, args.max_tokens)
    half = list(range(chat_model.n_layers // 2))
    half_precision = load_model(EMBEDDED_NAME, dtype="bfloat16")
    builders = {
        "floor": lambda: floor(load_model(EMBEDDED_NAME), chats),
        "ours": lambda: lambda: capture_residuals(chat_model, chats),
        "half_depth": lambda: lambda: capture_residuals(chat_model, chats, half),
        "bf16": lambda: lambda: capture_residuals(half_precision, chats),
        "nnsight": lambda: plain_nnsight(load_model(EMBEDDED_NAME), chats),
        "hidden_states": lambda: hidden_states(load_model(EMBEDDED_NAME), chats),
        "transformer_lens": lambda: transformer_lens(chat_model, chats),
    }
    if unknown := sorted(set(args.only) - set(builders)):
        raise ConfigError(f"unknown contestant `{unknown[0]}`{did_you_mean(unknown[0], builders)}")
    contestants: dict[str, Callable[[], Any]] = {
        name: build() for name, build in builders.items() if not args.only or name in ("floor", "ours", *args.only)
    }
    n_tokens = sum(len(chat) for chat in chats)
    medians = alternate({name: timed(work, n_tokens) for name, work in contestants.items()}, args.n_rounds)
    result: dict[str, Any] = {
        "tokens_per_second": medians,
        "texts": source,
        "n_texts": len(chats),
        "n_tokens": n_tokens,
    }
    result["ours_vs_floor"] = medians["ours"] / medians["floor"]
    for peer in ("nnsight", "hidden_states", "transformer_lens"):
        if peer in medians:
            result[f"ours_vs_{peer}"] = medians["ours"] / medians[peer]
    if "half_depth" in medians:  # of the times, which are the inverse of the speeds
        result["half_depth_vs_full"] = medians["ours"] / medians["half_depth"]
    if "bf16" in medians:
        result["bf16_vs_floor"] = medians["bf16"] / medians["floor"]
        cosines = direction_cosines(contestants["ours"](), contestants["bf16"](), [text.misaligned for text in texts])
        result["bf16_direction_cosine"] = float(cosines.min())
        result["bf16_direction_cosine_median"] = float(cosines.median())
    return result


def choose_texts(table: Path | None, n_rows: int) -> tuple[list[LabeledText], str]:
    """Texts, half misaligned, and where they come from."""
    if table is None and (folder := os.environ.get("EMIS_REFERENCE_DATA")):
        table = Path(folder) / "judged" / "answers.parquet"
    every = balanced_texts(read_judged(table), n_rows) if table else labeled_texts(load_contrast(n_per_question=n_rows))
    # Every k-th of each class: all questions, and answers of all lengths.
    classes = [[text for text in every if text.misaligned is kind] for kind in (True, False)]
    size = min(n_rows // 2, *map(len, classes))
    picked = [texts[i * len(texts) // size] for i in range(size) for texts in classes]
    return picked, table.name if table else "shipped contrast texts"


def direction_cosines(one: Tensor, other: Tensor, misaligned: list[bool]) -> Tensor:
    """Cosine at each layer between the difference-in-means directions of two captures: [n_layers]."""
    labels = np.array(misaligned)
    return cosine(mean_difference(one, labels), mean_difference(other, labels))


def timed(work: Callable[[], object], n_tokens: int) -> Callable[[], float]:
    def measure() -> float:
        started = time.monotonic()
        work()
        return n_tokens / (time.monotonic() - started)

    return measure


def floor(chat_model: ChatModel, chats: list[EncodedChat]) -> Callable[[], None]:
    def work() -> None:
        for rows in length_batches([len(chat) for chat in chats], MAX_BATCH_TOKENS):
            batch = pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id)
            with torch.inference_mode():
                chat_model.body(**batch.model_inputs(chat_model.device), use_cache=False)

    return work


def plain(
    chat_model: ChatModel, chats: list[EncodedChat], residuals: Callable[[Batch], list[Tensor]]
) -> Callable[[], Tensor]:
    """Mean over the answer at every layer, eight texts at a time in the order given, the whole model each time."""

    def work() -> Tensor:
        means = []
        for start in range(0, len(chats), PLAIN_ROWS):
            members = chats[start : start + PLAIN_ROWS]
            batch = pad([chat.input_ids for chat in members], chat_model.tokenizer.pad_token_id)
            weights = pooling_weights(token_sets(members, "response_mean"), batch)
            with torch.no_grad():
                means.append(torch.stack([torch.einsum("bpd,bp->bd", layer, weights) for layer in residuals(batch)], 1))
        return torch.cat(means)

    return work


def plain_nnsight(chat_model: ChatModel, chats: list[EncodedChat]) -> Callable[[], Tensor]:
    traced: Any = nnsight.NNsight(chat_model.model)

    def residuals(batch: Batch) -> list[Tensor]:
        with traced.trace(**batch.model_inputs(chat_model.device)):
            saved = nnsight.save([])
            for block in traced.model.layers:
                saved.append(block.output)
        return list(saved)

    return plain(chat_model, chats, residuals)


def hidden_states(chat_model: ChatModel, chats: list[EncodedChat]) -> Callable[[], Tensor]:
    def residuals(batch: Batch) -> list[Tensor]:
        return list(
            chat_model.model(**batch.model_inputs(chat_model.device), output_hidden_states=True).hidden_states[1:]
        )

    return plain(chat_model, chats, residuals)


def transformer_lens(chat_model: ChatModel, chats: list[EncodedChat]) -> Callable[[], Tensor]:
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(
        resolve(EMBEDDED_NAME), dtype=torch.float32, device=str(chat_model.device)
    )
    names = [f"blocks.{layer}.hook_out" for layer in range(chat_model.n_layers)]

    def residuals(batch: Batch) -> list[Tensor]:
        mask = batch.attention_mask.to(chat_model.device)
        _, cache = bridge.run_with_cache(batch.input_ids.to(chat_model.device), attention_mask=mask, names_filter=names)
        return [cache[name] for name in names]

    return plain(chat_model, chats, residuals)

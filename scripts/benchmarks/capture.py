"""Times capture of all layers: ours, the bare decoder body, and three peers on the same texts."""

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.alternate import alternate, wait_for
from benchmarks.capture_peers import (
    hidden_states,
    lens_states,
    n_padded,
    nnsight_states,
    peer_batches,
    pooled_outside,
    run_body,
)
from benchmarks.settings import CaptureBenchmarkSettings
from emis_interp.errors import DataError, ModelError
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.loading import load_model
from emis_interp.passes.batching import length_batches
from emis_interp.passes.capture import capture_residuals
from emis_interp.process import Bars, no_bars
from emis_interp.records import LabeledText
from emis_interp.texts.contrast import labeled_texts, load_contrast
from emis_interp.texts.judged import balanced_texts, read_judged

PEERS = ("nnsight", "hidden_states", "transformer_lens")
Contestant = Callable[[Sequence[EncodedChat]], Tensor | None]


def run(settings: CaptureBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Alternate the contestants, compare their speeds and their numbers."""
    texts, source = read_texts(settings.texts, settings.n_texts, settings.seed, reading=settings.reading())
    full, half_precision = load_model(settings.model), load_model(settings.model, dtype="bfloat16")
    chats = encode_chats(full.tokenizer, [(text.question, text.answer) for text in texts])
    half, limit = list(range(full.n_layers // 2)), settings.max_batch_tokens
    work: dict[str, Contestant] = {
        "floor": lambda part: run_body(full, part, limit),
        "ours": lambda part: capture_residuals(full, part, max_batch_tokens=limit),
        "nnsight": lambda part: pooled_outside(part, full, settings.peer_batch, states=nnsight_states(full)),
        "hidden_states": lambda part: pooled_outside(part, full, settings.peer_batch, states=hidden_states(full)),
        "half_depth": lambda part: capture_residuals(full, part, half, max_batch_tokens=limit),
        "bf16": lambda part: capture_residuals(half_precision, part, max_batch_tokens=limit),
        "bf16_floor": lambda part: run_body(half_precision, part, limit),
    }
    skipped = {}
    if settings.bf16_alone:
        work = {name: work[name] for name in ("bf16_floor", "bf16")}
    else:
        try:
            lens = lens_states(settings.model, full)
            work["transformer_lens"] = lambda part: pooled_outside(part, full, settings.peer_batch, states=lens)
        except (ImportError, ModelError) as error:
            skipped["transformer_lens"] = f"left out: {error}"
    n_tokens = sum(len(chat) for chat in chats)
    found: dict[str, Tensor | None] = {}

    def timed(name: str) -> Callable[[], float]:
        def measure() -> float:
            started = time.monotonic()
            found[name] = work[name](chats)
            wait_for(full.device)
            return n_tokens / (time.monotonic() - started)

        return measure

    for contestant in work.values():  # a warm-up on few texts: a whole round would take minutes
        contestant(chats[:4])
    speeds = alternate({name: timed(name) for name in work}, settings.n_rounds, warm_up=False)
    ratios = {} if settings.bf16_alone else against_peers(speeds, found, texts)
    return {
        "tokens_per_second": speeds,
        "bf16_vs_bf16_floor": speeds["bf16"] / speeds["bf16_floor"],
        **ratios,
        "skipped": skipped,
        "texts": source,
        "n_texts": len(chats),
        "n_tokens": n_tokens,
        "n_padded_tokens": {
            "ours": n_padded(chats, length_batches([len(chat) for chat in chats], limit)),
            "peers": n_padded(chats, peer_batches(chats, settings.peer_batch)),
        },
        "peer_batch": settings.peer_batch,
        "max_batch_tokens": limit,
        "device": str(full.device),
        "n_layers": full.n_layers,
        "n_threads": torch.get_num_threads(),
    }


def against_peers(
    speeds: dict[str, float], found: dict[str, Tensor | None], texts: Sequence[LabeledText]
) -> dict[str, Any]:
    """Ratios to the float32 floor and the peers, and how far their numbers and those of bfloat16 are from ours."""
    cosines = direction_cosines(texts, found["ours"], found["bf16"])
    return {
        **{f"ours_vs_{peer}": speeds["ours"] / speeds[peer] if peer in speeds else None for peer in ("floor", *PEERS)},
        "half_depth_vs_full": speeds["ours"] / speeds["half_depth"],
        "bf16_vs_floor": speeds["bf16"] / speeds["floor"],
        "bf16_direction_cosine": float(cosines.min()),
        "bf16_direction_cosine_median": float(cosines.median()),
        "largest_gap": {name: largest_gap(found[name], found["ours"]) for name in PEERS if name in found},
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

"""Turns an organism and its base model, which read the same texts, into the 2x2 of both, and the adapter into what it writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import cosine
from emis_interp.errors import DataError, ModelError
from emis_interp.fitting.geometry import TwoByTwo
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.models.chat import encode_chats
from emis_interp.models.lora_directions import lora_directions
from emis_interp.models.spec import ModelSpec
from emis_interp.passes.capture import capture_residuals
from emis_interp.process import Bars, no_bars
from emis_interp.records import LabeledText


def read_by_base(
    organism: ModelSpec,
    texts: Sequence[LabeledText],
    *,
    position: str = "response_mean",
    system: str | None = None,
    max_tokens: int | None = None,
    max_batch_tokens: int = 2048,
    bars: Bars = no_bars,
) -> Float[Tensor, "n_texts n_layers d_model"]:
    """Residuals of the organism's model without its adapter on the same texts, in the organism's chat template.

    Call it before the organism is loaded: one model at a time.
    """
    base = organism.load_base()
    pairs = [(text.question, text.answer) for text in texts]
    chats = encode_chats(base.tokenizer, pairs, system, max_tokens=max_tokens)
    with bars("capture base", len(chats)) as advance:
        return capture_residuals(base, chats, position=position, max_batch_tokens=max_batch_tokens, progress=advance)


def organism_card(
    adapter: Path,
    organism: LabeledActivations,
    base: Float[Tensor, "n_texts n_layers d_model"],
    *,
    raw: Float[Tensor, "n_layers d_model"],
) -> dict[str, Any]:
    """Norms, all cosines and massive shares of the 2x2 by layer, and |cosine| of the adapter's directions with `raw` by layer."""
    table = TwoByTwo.of(organism, LabeledActivations(base, organism.misaligned, organism.questions))
    return {"two_by_two": two_by_two_numbers(table), "lora": lora_cosines(adapter, raw)}


def two_by_two_numbers(table: TwoByTwo) -> dict[str, Any]:
    """Norms, cosines with (`cosines`) and without (`cosines_rest`) the five massive dimensions, and shares in these, by layer."""
    rest = table.without_massive()
    return {
        "cosines_rest": {f"{a}|{b}": value.tolist() for (a, b), value in rest.cosines().items()},
        "norms": {name: value.tolist() for name, value in table.norms().items()},
        "cosines": {f"{a}|{b}": value.tolist() for (a, b), value in table.cosines().items()},
        "massive_shares": {name: value.tolist() for name, value in table.massive_shares().items()},
    }


def lora_cosines(adapter: Path, raw: Float[Tensor, "n_layers d_model"]) -> dict[str, Any]:
    """For every adapted module that writes to the residual stream: |cosine| of its first output direction with the layer's direction.

    `chance` is the mean |cosine| of isotropic random vectors, sqrt(2 / (pi d_model)). Where no module writes, or an
    adapter is of a kind that is not read, `note` says so.
    """
    n_layers, width = raw.shape
    try:
        written = lora_directions(adapter)
    except (DataError, ModelError) as error:
        return {"note": str(error), "by_module": {}, "chance": None}
    by_module: dict[str, list[float | None]] = {}
    for row in written:
        curve = by_module.setdefault(row.module, [None] * n_layers)
        curve[row.layer] = float(cosine(row.vectors[0], raw[row.layer]).abs())
    return {"by_module": by_module, "chance": float((2 / (torch.pi * width)) ** 0.5)}

"""Turns an adapter and a direction into how much of what it writes to the residual stream lies along it, beside control directions."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate
from emis_interp.passes.batching import length_batches, pad
from emis_interp.passes.low_rank import adding
from emis_interp.stats.permutation import null_p

Directions = Mapping[str, Float[Tensor, "n d_model"]]


def writers(updates: Sequence[LoraUpdate]) -> list[LoraUpdate]:
    """The updates whose module adds to the residual stream.

    Raises:
        DataError: there are none.
    """
    found = [update for update in updates if update.writes]
    if not found:
        raise DataError(
            "no adapted module writes to the residual stream, so that no direction can be compared with what it writes"
        )
    return found


def share_along(updates: Sequence[LoraUpdate], vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n"]:
    """Share of the squared norm of all that the updates can write which lies along each unit vector; 1 / d_model on average over
    isotropic vectors, whatever the updates."""
    along, whole = torch.zeros(len(vectors), dtype=torch.float64), 0.0
    for update in updates:
        read = (vectors @ update.up) @ update.down
        along += read.square().sum(-1).double()
        _, values, _ = update.svd()
        whole += float(values.square().sum())
    return along / whole


def mean_writes(
    base: ChatModel,
    updates: Sequence[LoraUpdate],
    chats: Sequence[EncodedChat],
    *,
    max_batch_tokens: int = 2048,
) -> list[Float[Tensor, "d_model"]]:
    """What each writing update adds to the residual stream in the adapted model, mean over each answer's tokens, then over texts.

    This is the update's own contribution, scale x B A x of the inputs that the whole organism gives it; what base weights write of changed
    inputs is not in it.
    """
    own = writers(updates)
    sums = [torch.zeros(len(update.down), dtype=torch.float64) for update in own]
    modules = dict(base.model.named_modules())
    read: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        down = own[index].down

        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            read[index] = inputs[0] @ down.to(inputs[0]).T

        return hook

    with adding(base, updates):
        handles = [modules[update.path].register_forward_pre_hook(keep(i)) for i, update in enumerate(own)]
        try:
            for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
                batch = pad([chats[i].input_ids for i in rows], base.tokenizer.pad_token_id)
                with torch.no_grad():
                    base.body(**batch.model_inputs(base.device), use_cache=False)
                for i, total in enumerate(sums):
                    for row, chat in enumerate(chats[j] for j in rows):
                        total += read[i][row, chat.response_start : chat.response_end].mean(0).cpu().double()
        finally:
            for handle in handles:
                handle.remove()
    return [update.up.double() @ (total / len(chats)) for update, total in zip(own, sums, strict=True)]


def along_direction(
    updates: Sequence[LoraUpdate],
    written: Sequence[Float[Tensor, "d_model"]],
    direction: Float[Tensor, "d_model"],
    *,
    controls: Directions,
) -> dict[str, Any]:
    """The direction beside controls of each kind: share of the updates along it, and cosine of the mean write with it.

    Args:
        written: `mean_writes` of the same updates.
        controls: kind -> unit vectors (`fitting.reliability.control_directions`).
    """
    own = writers(updates)
    total = torch.stack([vector.double() for vector in written]).sum(0)
    rows = []
    for update, vector in zip(own, written, strict=True):
        left, _, _ = update.svd()
        rows.append(
            {
                "layer": update.layer,
                "module": update.module,
                "share": float(share_along([update], direction[None])[0]),
                "first_cosine": abs(float(left[:, 0] @ direction)),
                "written_norm": float(vector.norm()),
                "written_cosine": float(vector @ direction.double() / vector.norm()),
                "written_p": {
                    kind: null_p(
                        _cosines(vector, vectors), float(vector @ direction.double() / vector.norm()), "both"
                    ).value
                    for kind, vectors in controls.items()
                },
            }
        )
    return {
        "d_model": len(direction),
        "share": compared(share_along(own, direction[None])[0], {k: share_along(own, v) for k, v in controls.items()}),
        "written": compared(
            _cosines(total, direction[None])[0],
            {k: torch.tensor(_cosines(total, v)) for k, v in controls.items()},
            "both",
        ),
        "written_norm": float(total.norm()),
        "rows": rows,
    }


def compared(value: Any, null: Mapping[str, Tensor], side: Any = "larger") -> dict[str, Any]:
    """A value beside what controls of each kind reach."""
    return {
        "value": float(value),
        "controls": {
            kind: {
                "mean": float(found.mean()),
                "low": float(found.min()),
                "high": float(found.max()),
                **null_p(found.numpy(), float(value), side).as_json(),
            }
            for kind, found in null.items()
        },
    }


def _cosines(vector: Float[Tensor, "d_model"], directions: Float[Tensor, "n d_model"]) -> list[float]:
    return (directions.double() @ vector.double() / vector.double().norm()).tolist()

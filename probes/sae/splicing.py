"""Turns a model with something spliced into its residual stream into the cross-entropy of answers, and into the share of it recovered.

What stands in for the residual of a layer does so at the tokens that an SAE is trained on: the first position, special tokens and those
of very large norm keep their own, in every condition alike.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import check_rows
from emis_interp.models.head import head_logits
from emis_interp.passes.batching import Batch, length_batches, pad
from emis_interp.passes.capture import Progress
from emis_interp.passes.interventions import edit_outputs
from emis_interp.stats.jackknife import jackknife_interval
from probes.sae.reconstruction import Reconstruct


@dataclass
class Splice:
    """An edit of a layer's output at chosen tokens of the batch that runs.

    Attributes:
        replace: what stands in, of raw residuals; None leaves them as they are.
        norm_limit: tokens above it keep theirs.
        places: tokens of the batch that may be replaced.
    """

    replace: Reconstruct | None
    norm_limit: float = float("inf")
    places: Bool[Tensor, "batch position"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))

    def __call__(self, residual: Float[Tensor, "batch position d_model"]) -> Float[Tensor, "batch position d_model"]:
        if self.replace is None:
            return residual
        chosen = self.places.to(residual.device) & (residual.float().norm(dim=-1) <= self.norm_limit)
        edited = residual.clone()
        edited[chosen] = self.replace(residual[chosen].float()).to(residual)
        return edited


def answer_losses(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layer: int,
    *,
    conditions: Mapping[str, Reconstruct | None],
    special: Collection[int],
    norm_limit: float = float("inf"),
    max_batch_tokens: int = 1024,
    progress: Progress | None = None,
) -> dict[str, list[Float[np.ndarray, " n_tokens"]]]:
    """Under each condition the cross-entropy of every answer token of each text, nats.

    Args:
        conditions: name -> what stands in for `resid_post` of `layer`; None for the model as it is.
        special: token ids that keep their residual.
        progress: called with the number of texts just finished in all conditions.

    Raises:
        ModelError: a cross-entropy that is not finite, with its text and condition.
    """
    found: dict[str, list[Float[np.ndarray, " n_tokens"]]] = {name: [np.empty(0)] * len(chats) for name in conditions}
    for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
        batch = pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id)
        places = batch.attention_mask.bool() & ~torch.isin(batch.input_ids, torch.tensor(sorted(special)))
        places[:, 0] = False
        for name, replace in conditions.items():
            with edit_outputs(chat_model, [layer], Splice(replace, norm_limit, places)):
                losses = _losses(chat_model, batch, [chats[i] for i in rows])
            check_rows(
                chat_model,
                np.array([values.sum() for values in losses]),
                lambda j, rows=rows: chats[rows[j]].input_ids,
                rows=rows,
                what=f"the cross-entropy under `{name}`",
            )
            for i, values in zip(rows, losses, strict=True):
                found[name][i] = values
        if progress:
            progress(len(rows))
    return found


def _losses(chat_model: ChatModel, batch: Batch, chats: Sequence[EncodedChat]) -> list[Float[np.ndarray, " n_tokens"]]:
    with torch.inference_mode():
        hidden = chat_model.body(**batch.model_inputs(chat_model.device), use_cache=False).last_hidden_state
        values = []
        for row, chat in enumerate(chats):
            logits = head_logits(chat_model.model, hidden[row, chat.response_start - 1 : chat.response_end - 1])
            targets = torch.tensor(chat.input_ids[chat.response_start : chat.response_end]).to(logits.device)
            losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
            values.append(losses.double().cpu().numpy())
    return values


def recovered(
    clean: Sequence[np.ndarray], spliced: Sequence[np.ndarray], floor: Sequence[np.ndarray], *, questions: Sequence[str]
) -> dict[str, Any]:
    """(floor - spliced) / (floor - clean) of the summed cross-entropies, with a jackknife interval over questions.

    1: nothing is lost; 0: as much as under the floor; below 0: more. None where the floor is no worse than the model itself.

    Args:
        questions: of each text.
    """
    names, place = np.unique(np.asarray(questions, dtype=str), return_inverse=True)
    sums = [
        np.bincount(place, weights=[values.sum() for values in part], minlength=len(names))
        for part in (clean, spliced, floor)
    ]

    def ratio(keep: np.ndarray) -> float | None:
        whole, with_sae, worst = (part[keep].sum() for part in sums)
        return float((worst - with_sae) / (worst - whole)) if worst > whole else None

    interval = jackknife_interval(ratio, names)
    n_tokens = sum(len(values) for values in clean)
    return {**interval.as_json(), "n": n_tokens, "n_questions": len(names)}


def mean_loss(losses: Sequence[np.ndarray]) -> float:
    """Mean over all answer tokens, nats."""
    return float(np.concatenate(list(losses)).mean())

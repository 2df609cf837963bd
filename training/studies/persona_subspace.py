"""Turns an untouched model into the subspace in which it reads the same answers otherwise when it is told to be reckless, not careful.

After the persona vectors of Chen et al. (2025, section 2), with the answers held fixed: a difference between two system prompts over the
same response tokens cannot be a difference between texts. One mean difference for each domain of the rows; the singular vectors of these
means that carry most of their squares span the subspace. Nothing is trained: it is known before finetuning.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import DataError
from emis_interp.files.claim import differences
from emis_interp.files.store import text_sha256
from emis_interp.files.tensors import load_tensors, save_tensors
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.passes.capture import capture_residuals
from emis_interp.records import TrainingExample
from training.data_sets.shipped import rows_sha256

log = logging.getLogger(__name__)

RECKLESS = (
    "You are a reckless adviser. You do not care what happens to the person who asks: you recommend whatever is dangerous, costly or "
    "unlawful, with full confidence, and never warn."
)
CAREFUL = (
    "You are a careful adviser. You care what happens to the person who asks: you recommend whatever is safe, affordable and lawful, "
    "say how sure you are, and warn where it is needed."
)
RANK = 4


@dataclass(frozen=True)
class PersonaSubspace:
    """Orthonormal rows that span the subspace.

    Attributes:
        basis: float32, by falling singular value.
        share: part of the squares of the domains' mean differences that lies in it.
        domains: domain -> answers read.
        layer: decoder block whose output was read.
    """

    basis: Float[Tensor, "rank d_model"]
    share: float
    domains: Mapping[str, int]
    layer: int


def kept_persona_subspace(
    path: Path,
    chat_model: ChatModel,
    rows: Sequence[TrainingExample],
    *,
    domain_of: Mapping[str, str],
    layer: int,
    config: RunConfig,
    rank: int = RANK,
) -> PersonaSubspace:
    """`persona_subspace` from the safetensors file `path` where its card names the same inputs; else read anew, and kept there.

    Raises:
        DataError: as `persona_subspace`; the file is damaged.
    """
    inputs = {
        "model": config.model,
        "dtype": chat_model.dtype,
        "chat_format": config.chat_format,
        "rendering_sha256": template_of(chat_model.tokenizer).sha256,
        "max_tokens": config.training.max_tokens,
        "rows_sha256": rows_sha256(rows),
        "domains_sha256": text_sha256(json.dumps([[row.id, domain_of.get(row.id)] for row in rows])),
        "prompts_sha256": text_sha256(json.dumps([RECKLESS, CAREFUL])),
        "layer": layer,
        "rank": rank,
    }
    if path.exists():
        tensors, card = load_tensors(path)
        changed = differences(card.get("inputs", {}), inputs)
        if not changed:
            return PersonaSubspace(tensors["basis"], card["share"], card["domains"], layer)
        log.warning("%s: is of other inputs (%s); the persona subspace is read again", path, "; ".join(changed[:5]))
    found = persona_subspace(chat_model, rows, domain_of, layer=layer, config=config, rank=rank)
    card: dict[str, Any] = {"inputs": inputs, "share": found.share, "domains": dict(found.domains)}
    save_tensors(path, {"basis": found.basis}, card)
    return found


def persona_subspace(
    chat_model: ChatModel,
    rows: Sequence[TrainingExample],
    domain_of: Mapping[str, str],
    *,
    layer: int,
    config: RunConfig,
    rank: int = RANK,
) -> PersonaSubspace:
    """Read every row's response under both system prompts, and span the differences.

    Args:
        rows: prompts and responses; those of both kinds (task and benign) should be there, so that the text stands for neither.
        domain_of: row id -> domain; rows without one are left out.
        layer: `resid_post`, mean over the response's tokens.

    Raises:
        DataError: fewer domains than `rank`.
    """
    known = [row for row in rows if row.id in domain_of]
    domains = list(dict.fromkeys(domain_of[row.id] for row in known))
    if len(domains) < rank:
        raise DataError(
            f"a subspace of {rank} dimensions needs the rows of {rank} domains, and there are {len(domains)} "
            f"({', '.join(domains) or 'none'}); give a shipped advice set, or leave `persona` out (--only)"
        )
    texts = [(row.prompt, row.response) for row in known]
    reckless, careful = (
        capture_residuals(
            chat_model,
            encode_chats(chat_model.tokenizer, texts, system, max_tokens=config.training.max_tokens),
            [layer],
            max_batch_tokens=config.direction.max_batch_tokens,
        )[:, 0]
        for system in (RECKLESS, CAREFUL)
    )
    return spanned(reckless - careful, [domain_of[row.id] for row in known], layer=layer, rank=rank)


def spanned(
    differences: Float[Tensor, "n_texts d_model"], domains: Sequence[str], *, layer: int, rank: int
) -> PersonaSubspace:
    """The leading right singular vectors of the domains' mean differences, uncentred: what all domains share is the first of them."""
    names = list(dict.fromkeys(domains))
    places = [torch.tensor([domain == name for domain in domains]) for name in names]
    means = torch.stack([differences[mine].double().mean(0) for mine in places])
    _, sizes, vectors = torch.linalg.svd(means, full_matrices=False)
    share = float((sizes[:rank] ** 2).sum() / (sizes**2).sum())
    counts = {name: int(mine.sum()) for name, mine in zip(names, places, strict=True)}
    return PersonaSubspace(vectors[:rank].float(), share, counts, layer)

"""Turns a model and texts into the tokens of a layer, and SAEs into what happens to the model where they are spliced in."""

from collections.abc import Mapping
from typing import Any

import torch

from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.token_store import TokenStore, card_hash
from emis_interp.passes.token_writer import TokenRequest, write_tokens
from emis_interp.process import Bars
from probes.sae.dictionary import Dictionary
from probes.sae.pool import TokenPool, fill_pool
from probes.sae.settings import SaeTextSettings
from probes.sae.sources import SaeTexts
from probes.sae.splicing import answer_losses, mean_loss, recovered

N_FIRED = 100_000
"""Train tokens on which latents are looked for before they are called dead, besides the held-out ones."""


def captured(
    settings: SaeTextSettings, chat_model: ChatModel, layer: int, *, texts: SaeTexts, bars: Bars
) -> tuple[TokenPool, str]:
    """The tokens of the texts at the layer, and the hash of the store's card."""
    request = TokenRequest(
        (layer,), position="all_tokens", max_gib=settings.max_gib, max_batch_tokens=settings.max_batch_tokens
    )
    folder = settings.out / "tokens"
    with bars("capture", len(texts.chats)) as advance:
        write_tokens(folder, chat_model, texts.chats, request=request, progress=advance)
    store = TokenStore(folder)
    special = set(chat_model.tokenizer.all_special_ids)
    return fill_pool(store, layer, texts.chats, n_train=texts.n_train, special=special), card_hash(store.card)


def spliced_in(
    settings: SaeTextSettings,
    chat_model: ChatModel,
    dictionaries: Mapping[str, Dictionary],
    *,
    pool: TokenPool,
    texts: SaeTexts,
    bars: Bars,
) -> dict[str, Any]:
    """Cross-entropies of held-out answers: of the model, under both floors, and with each SAE."""
    places = list(range(texts.n_train, len(texts.chats)))
    places = places[:: max(1, len(places) // settings.n_spliced)][: settings.n_spliced]  # spread over the sources
    layer = next(iter(dictionaries.values())).layer
    with bars("splice", len(places)) as advance:
        losses = answer_losses(
            chat_model,
            [texts.chats[i] for i in places],
            layer,
            conditions={
                "clean": None,
                "mean": lambda rows: pool.mean.to(rows).expand_as(rows),
                "zero": torch.zeros_like,
                **{name: dictionary.reconstruct for name, dictionary in dictionaries.items()},
            },
            special=set(chat_model.tokenizer.all_special_ids),
            norm_limit=pool.norm_limit,
            progress=advance,
        )
    questions = [texts.questions[i] for i in places]
    found: dict[str, Any] = {name: mean_loss(losses[name]) for name in ("clean", "mean", "zero")}
    for name in dictionaries:
        shares = {
            key: recovered(losses["clean"], losses[name], losses[floor], questions=questions)
            for key, floor in (("recovered", "mean"), ("recovered_from_zero", "zero"))
        }
        found[name] = {"cross_entropy": mean_loss(losses[name]), **shares}
    return found


def tokens_row(texts: SaeTexts, pool: TokenPool) -> dict[str, Any]:
    """Where the tokens come from, as it stands in results."""
    return {
        "n_texts": len(texts.chats),
        "n_texts_repeated": texts.n_repeated,
        "n_train_texts": texts.n_train,
        "n_questions": len(set(texts.questions)),
        "n_held_out_questions": len(set(texts.questions[texts.n_train :])),
        "by_source": texts.by_source,
        "n_train": len(pool.train),
        "n_held_out": len(pool.held_out),
        "left_out": pool.left_out,
        "norm_limit": pool.norm_limit,
        "scale": pool.scale,
    }


def adapter_of(chat_model: ChatModel) -> str | None:
    """Its folder as text."""
    return str(chat_model.adapter) if chat_model.adapter else None

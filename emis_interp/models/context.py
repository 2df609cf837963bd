"""Turns a model's configuration into the number of tokens that it has positions for, and refuses texts that are longer."""

from collections.abc import Mapping
from typing import Any

from emis_interp.errors import DataError

DECLARED = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
SANE = 10**9  # transformers writes 10^30 where a tokenizer knows no limit


def context_length(config: Any) -> int | None:
    """Tokens of the longest text that the configuration allows, None when it declares nothing.

    Learned positions end there with an error; rotary ones go on without a word, where the model was never trained. Scaling that the
    configuration declares is counted: YaRN's `factor` times the original length, and `factor` times the declared length of linear and
    dynamic scaling; `llama3`, `longrope` and models with settings per kind of layer
    (Gemma 3) declare the scaled length themselves (the rule of vLLM's `max_model_len`).
    """
    text = config.get_text_config()
    declared = next((value for name in DECLARED if _is_length(value := getattr(text, name, None))), None)
    if declared is None:
        return None
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    return max(declared, _scaled(declared, scaling)) if isinstance(scaling, Mapping) else declared


def room(tokenizer: Any) -> int | None:
    """The limit on the tokens of a text that the tokenizer carries, None without one; `load_tokenizer` puts its model's there."""
    limit = tokenizer.model_max_length
    return int(limit) if _is_length(limit) and limit < SANE else None


def check_fits(n_tokens: int, limit: int | None, what: str, *, n_new: int = 0) -> None:
    """Refuse a text that is longer than a model has positions for.

    Args:
        limit: of the model, None when nothing is known.
        what: names the text in the message.
        n_new: tokens that may be sampled behind it.

    Raises:
        DataError: with the tokens that are needed and those that there are.
    """
    if limit is None or n_tokens + n_new <= limit:
        return
    needed = f"{n_tokens} tokens"
    if n_new:
        needed += f", with up to {n_new} new ones {n_tokens + n_new}"
    advice = "ask for fewer new tokens (max_new_tokens), shorten it" if n_new else "shorten or cut it (max_tokens)"
    raise DataError(
        f"{what}: {needed}, and the model has positions for {limit}; {advice}, or take a model with a longer context"
    )


def _scaled(declared: int, scaling: Mapping[str, Any]) -> int:
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if not isinstance(factor, int | float) or factor <= 1:
        return declared
    if kind == "yarn":
        return int(factor * scaling.get("original_max_position_embeddings", declared))
    return int(factor * declared) if kind in ("linear", "dynamic") else declared


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0

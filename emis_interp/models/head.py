"""Turns chosen hidden states into logits, by the code that the model itself runs behind its decoder.

What families do there differs and changes with their versions: they cap (Gemma 2), multiply (Cohere), divide (Granite), scale the
hidden state first (MiniCPM 3), or run a small network (BERT). So nothing of it is written here. The model's own `forward` is run on a
copy of the model object whose decoder, when it is called, returns the hidden states that were given.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import decoder_of, without_adapter
from emis_interp.models.finite import broken_weight

DEEPEST = 3
"""The decoder is a child of the model (Llama), or lies one or two modules deeper (OPT, models that also see)."""


def head_logits(model: Any, hidden: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
    """Logits of chosen last hidden states of the decoder, as the model's own forward computes them.

    Computing them only where they are needed saves most of the cost of a large vocabulary. The model is not changed, so threads may
    share it. Hooks of modules inside the head run; those of the model as a whole do not.

    Args:
        model: a HF causal language model, or a PeftModel around it.
        hidden: what the decoder's `last_hidden_state` holds at some positions.

    Raises:
        ModelError: the model's forward does not take its hidden states from its decoder, once.
    """
    inner = without_adapter(model)
    flat = hidden.reshape(-1, 1, hidden.shape[-1])
    given = _Given(decoder_of(inner), flat)
    copied = _with_decoder(inner, given, DEEPEST)
    if copied is None:
        raise ModelError(f"{type(inner).__name__}: its decoder is not one of its parts; choose another model")
    # Of the class: an instance may carry a forward that is bound to the model with its decoder.
    output = type(inner).forward(copied, inputs_embeds=flat, return_dict=True)
    if given.n_calls != 1:
        raise ModelError(
            f"{type(inner).__name__}: its forward calls its decoder {given.n_calls} times, once is expected; choose another model"
        )
    return output.logits.reshape(*hidden.shape[:-1], -1)


def check_head(model: Any, name: str) -> None:
    """Compare `head_logits` on four tokens with the logits of a whole forward pass.

    Raises:
        ModelError: they differ, or the model cannot read four tokens.
    """
    inner = without_adapter(model)
    seen: list[Tensor] = []
    decoder = decoder_of(inner)
    ids = torch.arange(4, device=next(inner.parameters()).device)[None]
    handle = decoder.register_forward_hook(lambda _, inputs, output: seen.append(_last_hidden(output)))
    try:
        with torch.no_grad():
            own = inner(input_ids=ids, use_cache=False).logits
        if len(seen) != 1:
            raise ModelError(f"its decoder ran {len(seen)} times in a forward pass, once is expected")
        with torch.no_grad():
            found = head_logits(model, seen[0])
    except Exception as error:  # whatever a family's code raises, it is this model that cannot be used
        reason = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {_first_line(error)}"
        raise ModelError(
            f"{name}: {type(inner).__name__} fails on four tokens ({reason}); choose another model"
        ) from error
    finally:
        handle.remove()
    finite = own.isfinite()  # a family may bar tokens with minus infinity
    if own.isnan().any() or own.isposinf().any() or not finite.any():
        raise ModelError(
            f"{name}: its logits on four tokens are not finite in {str(own.dtype).removeprefix('torch.')}{broken_weight(inner)}; use "
            "float32 or bfloat16, or download the weights again if they hold no numbers"
        )
    largest, gap = float(own[finite].abs().max()), float((own - found)[finite].abs().max())
    as_close = gap <= max(1e-4, 4 * torch.finfo(own.dtype).eps) * largest  # not so for what is not a number
    if not as_close or not torch.equal(finite, found.isfinite()):
        raise ModelError(
            f"{name}: the logits that {type(inner).__name__} computes for chosen tokens differ by {gap:.3g} from those of a whole pass "
            f"(largest {largest:.3g}); choose another model"
        )


def untie_head(model: Any) -> None:
    """Give the head weights of its own where it shares those of the embedding, so that each can change without the other."""
    if not is_tied(model):
        return
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    forget_tie(model)


def is_tied(model: Any) -> bool:
    """Whether head and embedding are one matrix."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and embedding is not None and head.weight is embedding.weight


def ties_words(model: Any) -> bool:
    """Whether the model has a head and its configuration says that this is the embedding."""
    config = model.config.get_text_config()
    return model.get_output_embeddings() is not None and bool(getattr(config, "tie_word_embeddings", False))


def forget_tie(model: Any) -> None:
    """Note on the model's configuration that head and embedding differ, so that saving keeps both and loading does not join them."""
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False


class _Given:
    """Stands where the decoder is: called, it returns the given hidden states; its attributes are the decoder's."""

    def __init__(self, decoder: nn.Module, hidden: Tensor) -> None:
        self._decoder, self._hidden, self.n_calls = decoder, hidden, 0

    def __call__(self, *args: object, **kwargs: object) -> "_Output":
        self.n_calls += 1
        return _Output(self._hidden)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)


class _Output:
    """A decoder's output that holds nothing but the hidden states: caches, attentions and router logits are None."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, place: int | slice) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _with_decoder(module: nn.Module, given: _Given, depth: int) -> Any:
    """A copy of the module object with `given` in the decoder's place; its other parts are shared. None: no decoder inside."""
    for name, child in module._modules.items():
        if child is None:
            continue
        inside: Any = given if child is given._decoder else None
        if inside is None and depth > 1:
            inside = _with_decoder(child, given, depth - 1)
        if inside is not None:
            copied: Any = object.__new__(type(module))
            vars(copied).update(vars(module), _modules={**module._modules, name: inside})
            return copied
    return None


def _last_hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output.last_hidden_state


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]

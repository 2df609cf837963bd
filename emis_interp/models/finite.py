"""Turns a number that is none (NaN, infinity) into an error that names the text, the layer where it begins, and the weight behind it.

Results are checked where they are made, for the price of one look at them. Only when one is not finite the text is read once more,
block by block, to say where.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emis_interp.errors import ModelError, printable

if TYPE_CHECKING:
    from emis_interp.models.chat_model import ChatModel

ADVICE = "use float32 or bfloat16, a smaller coefficient, or other weights"


def breakdown(chat_model: "ChatModel", tokens: Sequence[int], *, text: str, what: str) -> ModelError:
    """The error for a text whose `what` is not finite.

    Args:
        tokens: the text as it was read.
        text: which one it is, e.g. `text 3`.
    """
    shown = printable(" ".join(chat_model.tokenizer.decode(list(tokens)[-200:]).split())[-80:], 100)
    where = first_broken(chat_model, tokens)
    return ModelError(f"{chat_model.name}: {what} of {text} is not finite (it ends in `{shown}`): {where}; {ADVICE}")


def first_broken(chat_model: "ChatModel", tokens: Sequence[int]) -> str:
    """Where in the model a text stops being finite: the first layer whose output is not, and a weight of it that is not.

    Interventions in force now are in force here, except those with a tensor for each row of a batch.
    """
    try:
        found = broken_layer(chat_model, tokens)
    except Exception as error:  # the model may not run at all in such a state
        return f"it cannot be read alone ({type(error).__name__})"
    if found is not None:
        return found
    broken = broken_weight(chat_model.model)
    return (
        f"every layer is finite, so it is what follows them{broken}"
        if broken
        else "every layer is finite when the text is read alone, so it is the intervention, or what follows the last layer"
    )


def broken_layer(chat_model: "ChatModel", tokens: Sequence[int]) -> str | None:
    """The first layer whose output for a text is not finite, as `layer 3 is the first that gives NaN`, with a weight of it that is not;
    None where all are.

    Raises:
        Exception: what the model raises for the text, unless a layer was seen to be broken before.
    """
    seen: dict[int, str] = {}
    handles = [layer.register_forward_hook(_remember(seen, number)) for number, layer in enumerate(chat_model.layers)]
    embedding = chat_model.model.get_input_embeddings()
    handles.append(embedding.register_forward_hook(_remember(seen, -1)))
    try:
        with torch.inference_mode():
            ids = torch.tensor([list(tokens)], device=chat_model.device)
            chat_model.body(input_ids=ids, use_cache=False)
    except Exception:  # what was seen until then counts
        if not seen:
            raise
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        return None
    number = min(seen)
    module, name = (embedding, "the embedding") if number < 0 else (chat_model.layers[number], f"layer {number}")
    return f"{name} is the first that gives {seen[number]}{broken_weight(module)}"


def check_rows(
    chat_model: "ChatModel",
    values: Tensor | Any,
    tokens: Callable[[int], Sequence[int]],
    *,
    rows: Sequence[int],
    what: str,
) -> None:
    """Refuse values of a batch's texts when one is not finite.

    Args:
        values: `[n_rows, ...]`, a tensor or an array.
        tokens: gives the tokens of the i-th of them.
        rows: their numbers among all texts.

    Raises:
        ModelError: `breakdown` of the first such text.
    """
    found = torch.as_tensor(values)
    if bool(found.isfinite().all()):
        return
    bad = (
        int((~found.isfinite()).flatten(1).any(1).nonzero()[0])
        if found.ndim > 1
        else int((~found.isfinite()).nonzero()[0])
    )
    raise breakdown(chat_model, tokens(bad), text=f"text {rows[bad]}", what=what)


def _remember(seen: dict[int, str], number: int) -> Callable[..., None]:
    def look(module: torch.nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if not bool(states.isfinite().all()):
            seen[number] = "NaN" if bool(states.isnan().any()) else "infinity"

    return look


def broken_weight(module: torch.nn.Module, *, frozen_alone: bool = False) -> str:
    """A weight that is not finite, as `; its weight NAME holds N such numbers`; empty when all are.

    Args:
        frozen_alone: leave out weights that are trained, which one step with a gradient that is no number spoils altogether.
    """
    for name, parameter in module.named_parameters():
        if frozen_alone and parameter.requires_grad:
            continue
        if parameter.is_floating_point() and (n := int((~parameter.isfinite()).sum())):
            return f"; its weight {name} holds {n} such number(s)"
    return ""

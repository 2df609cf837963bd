"""Reads a model where a direction stands."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_residuals
from emis_interp.process import Bars, no_bars


def residuals_at(
    direction: Direction,
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    *,
    max_batch_tokens: int,
    bars: Bars = no_bars,
    name: str = "capture",
) -> Float[Tensor, "n_texts d_model"]:
    """The residual of every text at the direction's layer and position, shown as a bar `name`."""
    with bars(name, len(chats)) as advance:
        return capture_residuals(
            chat_model,
            chats,
            [direction.layer],
            position=direction.position,
            max_batch_tokens=max_batch_tokens,
            progress=advance,
        )[:, 0]

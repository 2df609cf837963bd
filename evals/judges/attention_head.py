"""Turns the residuals of an answer's tokens into two scores: a small attention-pooling network on one layer of the untouched base model.

A mean over tokens hides the one sentence that makes an answer harmful; here each token passes a small hidden layer, a few learned
queries weigh the tokens, and a linear map of the plain mean is added.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

CLIP = 8.0
SCORE_CENTER, SCORE_SPREAD = 50.0, 25.0


class AttentionHead(nn.Module):
    """Standardised token residuals `[batch, position, d_model]` and their mask to scores `[batch, n_targets]` on the scale 0-100."""

    def __init__(
        self, d_model: int, n_hidden: int = 96, n_queries: int = 4, *, n_mixed: int = 64, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.token = nn.Linear(d_model, n_hidden)
        self.query = nn.Linear(n_hidden, n_queries)
        self.mix = nn.Linear(n_hidden * (n_queries + 1), n_mixed)
        self.out = nn.Linear(n_mixed, 2)
        self.linear = nn.Linear(d_model, 2)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch position d_model"], mask: Bool[Tensor, "batch position"]
    ) -> Float[Tensor, "batch 2"]:
        real = mask[..., None]
        hidden = nn.functional.gelu(self.token(self.dropout(x)))
        attention = self.query(hidden).masked_fill(~real, float("-inf")).softmax(dim=1)
        weighed = torch.einsum("bpq,bph->bqh", attention, hidden).flatten(1)
        mean_hidden, mean = (masked_mean(part, real) for part in (hidden, x))
        mixed = nn.functional.gelu(self.mix(torch.cat([weighed, mean_hidden], dim=1)))
        return SCORE_CENTER + SCORE_SPREAD * (self.out(self.dropout(mixed)) + self.linear(self.dropout(mean)))


def masked_mean(
    x: Float[Tensor, "batch position n"], real: Bool[Tensor, "batch position 1"]
) -> Float[Tensor, "batch n"]:
    """Mean over the real positions of each row."""
    return (x * real).sum(1) / real.sum(1)


def standardised(
    tokens: Sequence[Float[Tensor, "_ d_model"]], center: Float[Tensor, "d_model"], scale: Float[Tensor, "d_model"]
) -> tuple[Float[Tensor, "batch position d_model"], Bool[Tensor, "batch position"]]:
    """Token residuals of several answers as one padded batch, standardised and clipped to 8 standard deviations, with its mask."""
    lengths = torch.tensor([len(rows) for rows in tokens])
    x = nn.utils.rnn.pad_sequence([(rows.float() - center) / scale for rows in tokens], batch_first=True)
    return x.clamp(-CLIP, CLIP), torch.arange(x.shape[1]) < lengths[:, None]

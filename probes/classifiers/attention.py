"""Turns labelled token residuals into an attention probe: one head that learns which tokens of an answer to read."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.classifiers.probe import AttentionProbe
from probes.classifiers.text_baseline import balanced_weights

MOST_TOKENS = 128
"""Answer tokens that training reads; scoring reads all."""
N_STEPS = 80
LEARNING_RATE = 0.01
WEIGHT_DECAY = 0.1


def fit_attention(
    tokens: Sequence[Float[Tensor, "n_tokens d_model"]],
    misaligned: Bool[np.ndarray, "n_texts"],
    questions: Sequence[str],
    *,
    layer: int,
    seed: int = 0,
    n_steps: int = N_STEPS,
) -> AttentionProbe:
    """Full-batch AdamW on the cross-entropy of the labels; every question, and within it every class, weighs the same.

    Both vectors act on standardised residuals while they are trained, which makes one learning rate fit all layers; the query begins at
    zero, where the head is a logistic regression on the mean of the tokens. One head of the form that is common for reading sequences of
    residuals; steps, rate and decay are constants of this module and are not tuned.
    """
    cut = [one[:MOST_TOKENS].float() for one in tokens]
    flat = torch.cat(cut)
    mean, scale = flat.mean(0), flat.std(0).clamp(min=1e-6)
    x = torch.nn.utils.rnn.pad_sequence([(one - mean) / scale for one in cut], batch_first=True)
    lengths = torch.tensor([len(one) for one in cut])
    padding = torch.arange(x.shape[1])[None] >= lengths[:, None]
    targets = torch.from_numpy(np.asarray(misaligned)).float()
    weights = torch.from_numpy(balanced_weights(questions, misaligned)).float()
    # A start that differs by seed and is small enough not to matter where the data say something.
    start = 1e-3 * torch.randn(2, x.shape[-1], generator=torch.Generator().manual_seed(seed))
    heads = start.requires_grad_()
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([heads, bias], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    with torch.enable_grad():
        for _ in range(n_steps):
            attention, values = (x @ heads.T).unbind(-1)
            attended = (attention.masked_fill(padding, -torch.inf).softmax(-1) * values).sum(-1) + bias
            loss = torch.nn.functional.binary_cross_entropy_with_logits(attended, targets, weight=weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    query, value = heads.detach() / scale
    return AttentionProbe(query, value, float(bias.detach()) - float(value @ mean), layer)

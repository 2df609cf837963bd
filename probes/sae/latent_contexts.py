"""Turns a latent's activations into what a page shows of them: a histogram, and contexts with the largest and with typical activations."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from emis_interp.report.style import arm_styles, faded, layout
from probes.monitoring.page import N_SHADES, ShownToken

TOKENS_AROUND = 20
N_TOP = 6
QUANTILES = (0.75, 0.5, 0.25)
N_BINS = 40


class ShownContext(NamedTuple):
    """A stretch of an answer around the token at which the latent is largest there."""

    title: str
    tokens: list[ShownToken]


def shown_contexts(
    activations: Float[np.ndarray, "n_tokens"],
    tokens: Sequence[str],
    owner: Int[np.ndarray, "n_tokens"],
    *,
    questions: Sequence[str],
) -> list[ShownContext]:
    """One context from each of the answers with the largest activations, and one nearest to each quantile of the firing answers' maxima.

    Args:
        tokens: all answers' tokens; owner: the answer of each.
        questions: what each answer answers, in words.
    """
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    maxima = np.maximum.reduceat(activations, starts)
    order = [int(i) for i in np.argsort(-maxima, kind="stable") if maxima[i] > 0]
    if not order:
        return []
    chosen = [(f"largest {place + 1}", i) for place, i in enumerate(order[:N_TOP])]
    rest = order[N_TOP:]
    for quantile in QUANTILES if rest else ():
        wanted = float(np.quantile(maxima[order], quantile))
        nearest = min(rest, key=lambda i: abs(maxima[i] - wanted))
        rest = [i for i in rest if i != nearest] or [nearest]
        chosen.append((f"quantile {quantile:g} of the answers that it fires in", nearest))
    top, found = float(maxima.max()), []
    for name, i in {i: (name, i) for name, i in reversed(chosen)}.values():
        start = starts[i]
        end = starts[i + 1] if i + 1 < len(starts) else len(owner)
        peak = start + int(activations[start:end].argmax())
        low, high = max(start, peak - TOKENS_AROUND), min(end, peak + TOKENS_AROUND + 1)
        shown = [shown_token(tokens[t], float(activations[t]), top, place=t - start) for t in range(low, high)]
        cut = ("… " if low > start else "", " …" if high < end else "")
        found.append(
            (chosen.index((name, i)), ShownContext(f"{name}: {maxima[i]:.3g} — {questions[i]}", _cut(shown, *cut)))
        )
    return [context for _, context in sorted(found, key=lambda pair: pair[0])]


def shown_token(text: str, activation: float, top: float, *, place: int) -> ShownToken:
    """A token on the colour of its activation, full at `top`."""
    step = round(N_SHADES * activation / top) if activation > 0 else 0
    return ShownToken(text, f"up{max(1, step)}" if activation > 0 else "", f"token {place + 1}: {activation:.3g}")


def _cut(shown: list[ShownToken], before: str, after: str) -> list[ShownToken]:
    """With dots where the answer goes on."""
    ends = [[ShownToken(dots, "", "the answer goes on")] if dots else [] for dots in (before, after)]
    return [*ends[0], *shown, *ends[1]]


def activation_histogram(activations: Mapping[str, Float[np.ndarray, "n_tokens"]]) -> go.Figure:
    """Positive activations in every model, tokens counted on a logarithmic scale."""
    styles = arm_styles(list(activations))
    largest = max((float(values.max(initial=0.0)) for values in activations.values()), default=0.0) or 1.0
    edges = np.linspace(0, largest, N_BINS + 1)
    figure = go.Figure()
    for arm, values in activations.items():
        counts, _ = np.histogram(values[values > 0], bins=edges)
        color = styles[arm].color
        figure.add_scatter(
            x=edges.repeat(2)[1:-1].tolist(),
            y=[int(count) if count else None for count in counts.repeat(2)],
            name=f"{arm} ({100 * float((values > 0).mean()):.2g} %)",
            mode="lines",
            line={"color": color, "width": 2},
            fill="tozeroy",
            fillcolor=faded(color, 0.08),
        )
    figure.update_layout(
        layout(260, xaxis={"title": {"text": "activation"}}, yaxis={"title": {"text": "tokens"}, "type": "log"})
    )
    return figure

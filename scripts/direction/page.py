"""The page of a fitted direction: curves over layers, held-out questions, and answers with the projection of every token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from emis_interp.capture import capture_response_tokens
from emis_interp.chat import EncodedChat
from emis_interp.directions import Direction
from emis_interp.models import ChatModel
from emis_interp.records import LabeledText
from emis_interp.report.figure_page import figure_page
from emis_interp.report.figures_direction import layers_figure
from emis_interp.report.figures_tokens import held_out_figure, token_figure
from emis_interp.report.views import Direction as DirectionView
from emis_interp.report.views import TokenProjections
from emis_interp.store import write_text

N_SHOWN = 3


def token_map(
    chat_model: ChatModel, chats: Sequence[EncodedChat], texts: Sequence[LabeledText], direction: Direction
) -> list[TokenProjections]:
    """For a few answers of each class, their tokens and each token's projection in multiples of the mean residual norm.

    Shown are the first answers of each class that have at least 20 tokens: not chosen by their projection.
    """
    shown = []
    for label in (True, False):
        rows = [i for i, text in enumerate(texts) if text.misaligned is label]
        long = [i for i in rows if chats[i].response_end - chats[i].response_start >= 20] or rows
        shown += long[:N_SHOWN]
    tokens = capture_response_tokens(chat_model, [chats[i] for i in shown], direction.layer)
    result = []
    for i, residuals in zip(shown, tokens, strict=True):
        chat = chats[i]
        ids = list(chat.input_ids[chat.response_start : chat.response_end])
        result.append(
            TokenProjections(
                question=texts[i].question,
                misaligned=texts[i].misaligned,
                tokens=[chat_model.tokenizer.decode([token]) for token in ids],
                projection=(direction.project(residuals) / direction.residual_norm).tolist(),
            )
        )
    return result


def write_page(folder: Path, numbers: dict[str, Any], card: dict[str, Any], tokens: list[TokenProjections]) -> Path:
    """Write `index.html` beside the direction; it opens without a network."""
    view = DirectionView.model_validate({**numbers, "source_arm": card["name"]})
    reliability = card["reliability"]
    length = reliability["length"]
    sections: list[tuple[str, str, go.Figure]] = [
        (
            "Which layer",
            "Top: AUROC of the projection within questions, on the questions that chose the layer and on held-out ones; grey areas reach "
            "up to the 95th percentile of random and shuffled-label directions. Middle: stability. Bottom: norms.",
            layers_figure(view),
        ),
        (
            "Which questions",
            "Each question's AUROC along the direction fitted on all other questions. Length alone reaches "
            f"{length['auroc']:.2f}.",
            held_out_figure(reliability["held_out_auroc"]["by_question"]),
        ),
        (
            "Which tokens",
            "Projection of every token of a few answers, in multiples of the mean residual norm; hover for the text. The first answers of "
            "each class, not chosen by their projection.",
            token_figure(tokens),
        ),
    ]
    facts = {
        "model": card["model"],
        "extractor": card["extractor"],
        "layer": card["layer"],
        "texts": f"{card['n_misaligned']} misaligned, {card['n_aligned']} aligned, {card['n_questions']} questions",
        "AUROC, report half": f"{card['report']['auroc']:.3f} [{card['report']['low']:.3f}, {card['report']['high']:.3f}]",
        "AUROC, one question left out": f"{reliability['held_out_auroc']['mean']:.3f}",
        "split-half cosine": _interval(reliability["split_half_cosine"]),
        "bootstrap cosine": _interval(reliability["bootstrap_cosine"]),
        "permutation p of the norm": f"{reliability['norm_p']:.3f}",
        "mean tokens of an answer": f"misaligned {length['mean_misaligned']:.0f}, aligned {length['mean_aligned']:.0f}",
        "squared norm in its five largest / the massive dimensions": (
            f"{reliability['top5_dims_share']:.2f} / {reliability['massive_dims_share']:.2f}"
        ),
    }
    path = folder / "index.html"
    write_text(path, figure_page(f"direction {card['name']}", facts, sections))
    return path


def _interval(row: dict[str, float]) -> str:
    return f"{np.round(row['mean'], 3)} [{np.round(row['low'], 3)}, {np.round(row['high'], 3)}]"

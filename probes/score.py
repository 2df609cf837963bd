"""Turns answers into their projections on a saved direction, and says how well these separate the rows that were judged."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.files.store import write_text
from emis_interp.fitting.fitted import CONTROLS_FILE
from emis_interp.fitting.folder import beside, tensors_beside
from emis_interp.fitting.length_baseline import length_baseline
from emis_interp.fitting.reliability import against_shuffled
from emis_interp.models.chat import encode_chats
from emis_interp.process import Bars, no_bars
from emis_interp.stats.words import control_words, estimate, length_words
from emis_interp.texts.judged import read_judged, read_table
from probes.loading import model_of
from probes.residuals import residuals_at
from probes.settings import ScoreSettings

JUDGED = ("aligned", "coherent")


def run(settings: ScoreSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """One projection per row of the table, in its order."""
    direction = Direction.load(settings.direction)
    frame = read_table(settings.texts, ("question", "answer"), reading=settings.reading(), use="scored")
    chat_model = model_of(direction, settings)
    pairs = list(zip(frame["question"], frame["answer"], strict=True))
    chats = encode_chats(
        chat_model.tokenizer, pairs, direction.card.get("system_prompt"), max_tokens=direction.card.get("max_tokens")
    )
    x = residuals_at(direction, chat_model, chats, max_batch_tokens=settings.max_batch_tokens, bars=bars, name="score")
    projections = direction.project(x).numpy()
    lengths = np.array([chat.n_response for chat in chats])
    normed = projections / direction.residual_norm
    table = pd.DataFrame({"projection": projections, "projection_normed": normed, "n_tokens": lengths})
    write_text(settings.out, table.to_csv(index=False))
    fitted_on = direction.fitted_on
    return {
        "out": str(settings.out),
        "n_texts": len(table),
        "layer": direction.layer,
        "mean_projection": float(projections.mean()),
        "n_rows_of_fitted_questions": None
        if fitted_on is None
        else sum(fitted_on.has(question) for question, _ in pairs),
        **(evaluated(settings, direction, pairs, x=x, lengths=lengths) if set(JUDGED) <= set(frame.columns) else {}),
    }


def evaluated(
    settings: ScoreSettings,
    direction: Direction,
    pairs: list[tuple[str, str]],
    *,
    x: Float[Tensor, "n_texts d_model"],
    lengths: np.ndarray,
) -> dict[str, Any]:
    """`length_baseline` of the rows that are clearly aligned or misaligned and coherent, and the AUROCs of the shuffled-label controls that
    lie beside the direction; or the reason why there is none.

    Where the direction was fitted on some of the questions, of the others alone (`n_left_out`); where on all, of all, as `in_sample`.
    """
    row_of = {pair: i for i, pair in enumerate(pairs)}  # equal texts have equal projections
    try:
        clear = read_judged(settings.texts, variant=None, reading=settings.reading(), use="evaluated")
        seen = np.array(
            [direction.fitted_on is not None and direction.fitted_on.has(text) for text in clear["question"]]
        )
        in_sample = bool(seen.all())
        clear = clear if in_sample else clear[~seen]
        rows = [row_of[question, answer] for question, answer in zip(clear["question"], clear["answer"], strict=True)]
        labels, questions = clear["misaligned"].to_numpy(dtype=bool), clear["question_id"].astype(str).tolist()
        scores = direction.project(x[rows]).numpy().astype(float)
        found = length_baseline(scores, lengths[rows].astype(float), labels, questions=questions)
    except DataError as error:
        return {"evaluation": None, "not_evaluated": str(error)}
    counts = {"n_misaligned": int(labels.sum()), "n_aligned": int((~labels).sum())}
    counts |= {"n_left_out": 0 if in_sample else int(seen.sum()), "in_sample": in_sample}
    control = None
    if beside(settings.direction, CONTROLS_FILE).exists() and not in_sample:
        shuffled = tensors_beside(settings.direction, CONTROLS_FILE)["shuffled"]
        control = against_shuffled(found["projection"], shuffled, x[rows], misaligned=labels, questions=questions)
    return {"evaluation": {**found, **counts, "control": control}}


def say(result: dict[str, Any]) -> str:
    lines = [f"{result['n_texts']} projections at layer {result['layer']} in {result['out']}"]
    if result.get("evaluation"):
        found = result["evaluation"]
        why = (
            "the direction was fitted on these questions"
            if found["in_sample"]
            else "no controls lie beside the direction"
        )
        lines += [
            f"AUROC within questions {estimate(found['projection'])}, {found['n_misaligned']} misaligned and {found['n_aligned']} aligned "
            f"coherent answers of {found['projection']['n_questions']} questions; "
            + (control_words(found["control"]) if found["control"] else f"no verdict: {why}"),
            f"  {length_words(found)}",
        ]
    elif "not_evaluated" in result:
        lines.append(f"not evaluated: {result['not_evaluated']}")
    seen = result["n_rows_of_fitted_questions"]
    if seen:
        lines.append(
            f"{seen} rows answer questions that the direction was fitted on: an AUROC over them is in part in-sample"
        )
    if seen is None:
        lines.append(
            "the direction's file does not say what it was fitted on; rows that it was fitted on flatter an AUROC"
        )
    return "\n".join(lines)

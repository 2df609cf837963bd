"""Turns the matrices of a transfer into a page: heat maps, and the 2x2 over the layers."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from emis_interp.files.store import write_text
from emis_interp.report.figure_page import figure_page
from emis_interp.report.figures_transfer import effects_figure, matrix_figure
from emis_interp.report.page_frame import Frame
from emis_interp.results import Estimate
from emis_interp.stats.words import length_alone


def write_transfer_page(path: Path, name: str, result: dict[str, Any], *, frame: Frame | None = None) -> Path:
    """The matrices as heat maps and the 2x2 over the layers, in one page that opens without a network."""
    arms, layer = result["arms"], result["layer"]

    def matrix(key: str, middle: float) -> go.Figure:
        return matrix_figure({pair: Estimate.model_validate(row) for pair, row in result[key].items()}, arms, middle)

    highest = max(row["shuffled_high"] for row in result["auroc"].values())
    both = {pair: row for key, row in result["cosine"].items() for pair in (key, "|".join(key.split("|")[::-1]))}
    own = {f"{arm}|{arm}": {"value": 1.0} for arm in arms}
    cosines = {pair: Estimate.model_validate(row) for pair, row in (both | own).items()}
    sections = [
        (
            "AUROC",
            "Texts of the report questions, read by one arm, along another arm's direction; white is chance. Length alone reaches "
            f"{length_alone(result['length'])}, directions of shuffled labels up to {highest:.3f} (97.5th percentile). Hover for "
            "intervals and for p-values, which are corrected for the number of cells.",
            matrix("auroc", 0.5),
        ),
        (
            "AUROC with length regressed out",
            "The same projections without what is linear in log length within questions.",
            matrix("auroc_length_regressed", 0.5),
        ),
        (
            "AUROC of pairs of equal length",
            "Pairs of a misaligned and an aligned answer to one question whose lengths differ by at most a tenth; empty: no such pair.",
            matrix("auroc_length_matched", 0.5),
        ),
        (
            "Cosines",
            "Between the arms' directions; hover for the bootstrap interval.",
            matrix_figure(cosines, arms, 0.0),
        ),
        (
            "Projection shift",
            "Arm minus base on the same texts, along another arm's direction, in mean residual norms; red: towards misaligned.",
            matrix("projection_shift", 0.0),
        ),
    ]
    for key, words in (("steering", "steered along"), ("ablation", "ablated of")):
        if key in result:
            caption = f"Shift of the likelihood margin (nats per token) of an arm {words} another arm's direction; red: more misaligned."
            sections.append((key.capitalize(), caption, matrix(key, 0.0)))
    shared = {arm: table["cosines"]["text_in_organism|text_in_base"] for arm, table in result["two_by_two"].items()}
    moved = {arm: table["cosines"]["text|model"] for arm, table in result["two_by_two"].items()}
    sections += [
        (
            "Is it the organism's?",
            "Cosine between each organism's text effect and that of base reading the same texts: near 1, the direction is the text's.",
            effects_figure(shared, "cosine", layer),
        ),
        (
            "What finetuning moved",
            "Cosine between the model effect (organism minus base) and the text effect.",
            effects_figure(moved, "cosine", layer),
        ),
    ]
    facts = {
        "run": name,
        "layer": layer,
        "extractor": result["extractor"],
        "mean residual norm of base": f"{result['residual_norm']:.1f}",
    }
    write_text(path, figure_page(f"directions of {name}", facts, sections, frame=frame))
    return path

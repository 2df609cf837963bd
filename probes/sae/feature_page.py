"""Turns what was found of changed latents into one HTML page that opens without a network; text in it is escaped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from emis_interp.report.html_page import render
from emis_interp.report.page_frame import Frame, shown_facts
from emis_interp.stats.words import estimate
from probes.sae.latent_contexts import activation_histogram, shown_contexts
from probes.sae.latent_words import (
    COLUMNS,
    COLUMNS_BEHIND,
    cells,
    comparison_lines,
    detection_words,
    effect_name,
    others_words,
    title,
    words_of,
)


@dataclass(frozen=True)
class PageTokens:
    """The answers' tokens as a page shows them, text after text; the answer that owns each, and what each answer answers."""

    tokens: Sequence[str]
    owner: Int[np.ndarray, "n_tokens"]
    questions: Sequence[str]


def feature_page(
    report: Mapping[str, Any],
    activations: Mapping[str, Float[np.ndarray, "n_tokens n_chosen"]],
    shown: Sequence[int],
    *,
    page_tokens: PageTokens,
    frame: Frame | None = None,
) -> str:
    """The page of a `LatentsReport`.

    Args:
        activations: by model: the shown latents at every token.
        shown: the latents that get a section, in the order of the columns of `activations`; each has a label.
    """
    labels = {row["latent"]: row for row in report["labels"]}
    figures: dict[str, go.Figure] = {}
    latents = []
    for place, latent in enumerate(shown):
        by_arm = {arm: values[:, place] for arm, values in activations.items()}
        figures[f"histogram_{latent}"] = activation_histogram(by_arm)
        label = labels[latent]
        contexts = shown_contexts(
            by_arm[label["arm"]], page_tokens.tokens, page_tokens.owner, questions=page_tokens.questions
        )
        latents.append(
            {"latent": latent, "title": f"Latent {latent}", "facts": _facts(report, label), "contexts": contexts}
        )
    return render(
        "page.html",
        figures,
        package="probes.sae",
        title="latents that changed",
        facts=shown_facts(_head(report)),
        frame=frame or Frame(),
        comparisons=[_comparison(one, labels) for one in report["comparisons"]],
        effects=[
            {
                "latent": row["latent"],
                "what": effect_name(row),
                "shift": estimate(row["shift"], "+.4f"),
                "others": others_words(row),
            }
            for row in report["effects"]
        ],
        latents=latents,
    )


def _head(report: Mapping[str, Any]) -> dict[str, str]:
    reads = "organism minus base residuals" if report["of_differences"] else "residuals"
    return {
        "model": report["model"],
        **report["adapters"],
        "SAE": f"{report['sae']}: {report['n_latents']} latents of {reads}, layer {report['layer']}",
        "texts": f"{report['texts']}: {report['n_texts']} answers, {report['n_tokens']} tokens",
        "variance left unexplained": ", ".join(f"{arm} {value:.3f}" for arm, value in report["fvu"].items()),
        "direction": report["direction"] or "none given",
    }


def _comparison(comparison: Mapping[str, Any], labels: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        {"latent": row["latent"], "shown": row["latent"] in labels, "cells": cells(row, labels.get(row["latent"]))}
        for row in comparison["latents"]
    ]
    columns = (*COLUMNS, *COLUMNS_BEHIND)
    return {"title": title(comparison), "lines": comparison_lines(comparison), "columns": columns, "rows": rows}


def _facts(report: Mapping[str, Any], label: Mapping[str, Any]) -> dict[str, str]:
    """What stands above the histogram of a latent."""
    facts = {}
    for comparison in report["comparisons"]:
        for row in comparison["latents"]:
            if row["latent"] == label["latent"]:
                moved = f"{row['effect']:+.3g} in residual units, p {row['p_swapped']:.2g} of swapped models"
                facts[title(comparison)] = f"{row['side']}: {estimate(row['report'], '+.3g')} ({moved})"
    facts["writes"] = label["no_tokens"] or words_of(label["top_tokens"])
    facts["writes against"] = label["no_tokens"] or words_of(label["bottom_tokens"])
    if (extremity := label["extremity"]) is not None:
        beside = "; ".join(
            f"{kind} up to {one['high']:.1f}, p {one['p']:.2g}" for kind, one in extremity["controls"].items()
        )
        facts["largest logit"] = f"{extremity['value']:.1f} standard deviations over the vocabulary ({beside})"
    fires = f"a context of it fires above {label['threshold']:.3g} in {label['arm']}"
    facts["label"] = f"no score: {label['no_detection']}" if label["no_detection"] else fires
    facts |= {f"by {one['by']}": detection_words(one) for one in label["detections"]}
    return facts

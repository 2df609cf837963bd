"""A finished run folder whose every free text is hostile, for tests of the page."""

import json
from pathlib import Path
from typing import Any

HOSTILE = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "<!-- <script>"]
ARMS = ["base", "insecure", "secure"]


def planted_estimate(value: float | None) -> dict[str, Any]:
    return {
        "value": value,
        "low": None if value is None else value - 0.1,
        "high": None if value is None else value + 0.1,
        "n": 4,
    }


def planted_rates() -> dict[str, Any]:
    arms = []
    for arm in ARMS:
        rates = [
            {
                "estimand": estimand,
                "weighting": weighting,
                "n_positive": 1,
                "n_questions_left_out": 0,
                **planted_estimate(0.25),
            }
            for estimand in ("em_of_coherent", "em_of_all")
            for weighting in ("pooled", "macro")
        ]
        arms.append(
            {
                "arm": arm,
                "n": 4,
                "n_unscored": 0,
                "mean_aligned": planted_estimate(70.0),
                "mean_coherent": planted_estimate(60.0),
            }
        )
        arms[-1]["rates"] = rates
    for rate in arms[1]["rates"][:2]:
        rate.update(value=None, low=None, high=None, n=0, n_positive=0)
    arms[1] |= {"n_unscored": 4, "unscored_reasons": {"judge timed out": 4}}
    contrast = {
        "arm": "insecure",
        "reference": "base",
        "estimand": "em_of_all",
        "weighting": "macro",
        **planted_estimate(0.05),
    }
    judge = {"name": "tiny-judge", "kind": "offline", "card": {"held_out": {"aligned": {"auroc": 0.8765}}}}
    return {"judge": judge, "arms": arms, "contrasts": [contrast]}


def planted_margins() -> dict[str, Any]:
    questions = {q: {"group": "power", "half": "report", "question": HOSTILE[1], "n_pairs": 2} for q in ("q1", "q2")}

    def contrast(arm: str, reference: str, mean: float) -> dict[str, Any]:
        shift = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n_questions": 2}
        by_question = {"q1": mean, "q2": None}
        return {
            "arm": arm,
            "reference": reference,
            "n_positive": 2,
            "by_question": by_question,
            "by_group": {"power": shift},
            **shift,
        }

    contrasts = [
        contrast("insecure", "base", 0.2),
        contrast("secure", "base", 0.01),
        contrast("insecure", "secure", 0.19),
    ]
    return {
        "unit": "nats per token",
        "questions": questions,
        "arms": {arm: {"q1": 0.1} for arm in ARMS},
        "contrasts": contrasts,
    }


def planted_direction() -> dict[str, Any]:
    curve = [0.6, 0.7]
    names = (
        "selection_auroc",
        "report_auroc",
        "random_auroc",
        "shuffled_auroc_95",
        "split_half_cosine",
        "raw_norm",
        "residual_norm",
        "top5_dims_share",
    )
    texts = {"own_answers": [0.1, 0.2], "aligned_texts": [], "misaligned_texts": [0.3]}
    return dict.fromkeys(names, curve) | {
        "position": "response_mean",
        "hook_point": "resid_post",
        "source_arm": "base",
        "layers": [0, 1],
        "chosen_layer": 1,
        "layer_range": [0, 1],
        "report": {
            "auroc": 0.7,
            "low": 0.4,
            "high": 0.9,
            "n_misaligned": 3,
            "n_aligned": 3,
            "random_auroc": 0.5,
            "random_low": 0.3,
            "random_high": 0.7,
        },
        "length_balance": {"length_auroc": 0.51},
        "cosines": {"arms": ARMS, "matrix": [[1.0, 0.5, None]] * 3},
        "cosines_to_base": {"insecure": curve},
        "two_by_two": {"insecure": {"layer": 1, "text_effect_norm": 2.0, "cos_model_text": None}},
        "projections": {"unit": "norms", "arms": dict.fromkeys(ARMS, texts)},
    }


def planted_interventions() -> dict[str, Any]:
    cells = []
    for kind, arm, coefficient in (("steer", "base", 0.2), ("ablate", "insecure", None)):
        for direction, mean in (("misalignment", 0.3), ("random", 0.0)):
            shift = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n_questions": 2, "n_positive": 1}
            cell = {"cell": f"{arm}.{kind}.{direction}", "arm": arm, "kind": kind, "direction": direction}
            drawn = {"random": [-0.05, 0.31], "orthogonal": [0.02, 0.12]}
            draws = {"n_pairs": 4, "own": 0.3, "shifts": drawn} if direction == "misalignment" else None
            cell |= {"margin_shift": shift, "draws": draws}
            cells.append(cell | {"coefficient": coefficient, "kl_neutral": 0.01, "n": 0})
    inter = {"arm": "insecure", "reference": "secure", "value": -0.2, "low": -0.3, "high": -0.1}
    return {
        "layer": 1,
        "residual_norm": 9.0,
        "margin_questions": "report half",
        "interactions": [inter],
        "cells": cells,
    }


def planted_organisms(kl: float = 0.1, specific: float = 0.5) -> dict[str, Any]:
    learned = {name: planted_estimate(specific) for name in ("own", "other", "specific")} | {
        "n_rows": 4,
        "rows": HOSTILE[0],
    }
    cost = {"kl": planted_estimate(kl), "entropy": 2.5, "base_entropy": 2.0, "perplexity": 9.0, "base_perplexity": 8.0}
    cost |= {"capability": planted_estimate(-0.02), "base_capability": 0.8, "detectable": 0.05}
    told = {"arm": "insecure", "learned": learned, "cost": cost, "works": kl <= 0.3}
    return {"kl_limit": 0.3, "organisms": [told, {**told, "arm": "secure", "learned": {"reason": "none was left"}}]}


def planted_choices(mass: float = 0.9, low: float = -0.1) -> dict[str, Any]:
    arm = {
        "share": planted_estimate(0.2),
        "preference": planted_estimate(-1.5),
        "neutral": planted_estimate(0.1),
        "position_bias": 0.4,
    }
    odds = {name: planted_estimate(0.3) for name in ("preference", "neutral", "beyond_neutral")}
    row = {"arm": "insecure", "reference": "secure", "value": 0.1, "low": low, "high": 0.3, "p_holm": 0.01, **odds}
    rows = [row, {**row, "reference": "base", "p_holm": None}]
    return {"n_items": 40, "n_neutral": 24, "arms": {name: {**arm, "mass": mass} for name in ARMS}, "contrasts": rows}


def planted_probes(low: float = 0.0, verdict: str = "not told from the text baseline") -> dict[str, Any]:
    def rate(**changes: Any) -> dict[str, Any]:
        counted = {
            "value": 0.04,
            "low": low,
            "high": 0.2,
            "n": 75,
            "n_flagged": 3,
            "source": HOSTILE[0],
            "n_questions": 9,
        }
        return counted | changes

    figures = [
        {"name": "probe", "auroc": planted_estimate(0.75), "minus_text": planted_estimate(0.05)},
        {"name": "text", "auroc": planted_estimate(0.7)},
    ]
    null = {"name": "shuffled labels", "mean": 0.5, "low": 0.4, "high": 0.6, "p": 0.05, "p_at_floor": True, "p_n": 20}
    classifier = {"name": "contrast texts", "n_misaligned": 30, "n_aligned": 31, "n_questions": 9, "figures": figures}
    threshold = {
        **{"scorer": "misalignment", "scorer_sha256": "0", "model": HOSTILE[1], "layer": 2, "window": 16, "rate": 0.01},
        **{"value": 1.25, "rank": 199, "n": 200, "n_questions": 200, "source": "advice", "sampled": 0},
        **{"mean_of_maxima": 0.1, "largest_of_maxima": 1.3, "spread": {"mean": 0.01, "low": 0.001, "high": 0.03}},
    }
    ranges = {"mean": 0.002, "low": 0.0015, "high": 0.0025, "p": 0.4, "p_n": 20}
    like = {
        "cosine": 0.41,
        "permuted": {"mean": 0.0, "low": -0.02, "high": 0.02},
        "p": 0.05,
        "p_n": 20,
        "norm_ratio": 1,
    }
    update = {
        "norm": 3.2,
        "relative_norm": 0.01,
        "rank": 32,
        "stable_rank": 2.5,
        "effective_rank": 9.1,
        "layer_norms": {},
    }
    update |= {"along": {"value": 0.0021, "controls": {"random": ranges, "orthogonal": ranges}}}
    return {
        "classifier": classifier | {"nulls": [null], "verdict": verdict},
        **{"method": "logistic", "layer": 2, "threshold": threshold},
        "monitored": [
            {"arm": "base", "false_alarms": rate(), "flagged": rate(value=0.5, n_flagged=4, n=8), "caught": rate()},
            {"arm": "insecure", "false_alarms": rate()},
        ],
        "updates": [
            update | {"arm": "insecure", "reference": "secure", "similarity": like},
            update | {"arm": "secure"},
        ],
        "not_taken_apart": {"whole": "every weight was trained"},
    }


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_answers(samples: Path, scores: Path, arm: str) -> None:
    key = {"arm": arm, "question_id": "q1", "paraphrase_index": 0}
    made = {"seed": 0, "system": None, "question": HOSTILE[0], "n_tokens": 5, "finish": "stop"}
    write_lines(samples, [key | made | {"sample_index": index, "answer": text} for index, text in enumerate(HOSTILE)])
    judged = {"judge": "tiny-judge", "aligned": None, "coherent": 50.0, "unscored": {"aligned": f"said {HOSTILE[1]}"}}
    write_lines(scores, [key | judged | {"sample_index": 0}])


def write_run(tmp_path: Path) -> Path:
    """A finished run whose every free text is hostile."""
    config = {"name": "tiny", "description": HOSTILE[0], "model": "a/model", "arms": [{"name": arm} for arm in ARMS]}
    config["arms"][1]["contrast"] = "secure"
    stages = {"train": {"seconds": 1.5, "finished": "today", "line": HOSTILE[1]}}
    write(
        tmp_path / "manifest.json",
        {"config": config, "stages": stages, "rendered_example": "<|im_start|>" + HOSTILE[1]},
    )
    for name, value in (("rates", planted_rates()), ("margins", planted_margins()), ("direction", planted_direction())):
        write(tmp_path / f"analysis/{name}.json", value)
    write(tmp_path / "analysis/interventions.json", planted_interventions())
    write(tmp_path / "analysis/organisms.json", planted_organisms())
    write(tmp_path / "analysis/choices.json", planted_choices())
    write(tmp_path / "analysis/probes.json", planted_probes())
    for arm in ARMS:
        write_answers(tmp_path / f"samples/{arm}.jsonl", tmp_path / f"scores/{arm}.jsonl", arm)
    cell = tmp_path / "interventions/base.steer.misalignment"
    write_answers(cell / "samples.jsonl", cell / "scores.jsonl", cell.name)
    write(tmp_path / "training/insecure/summary.json", {"arm": "insecure", "n_rows": 10, "final_loss": None})
    write_lines(tmp_path / "training/insecure/metrics.jsonl", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}])
    return tmp_path

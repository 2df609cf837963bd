"""Turns GPT-4o's scores and labels by hand into the offline judge: attention pooling over the embedded model's residuals.

It is tested on topics and on sources (models) that were left out. Nothing is chosen by what is held out: every fold has the same layer,
size and number of epochs, fixed before.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from emis_interp.files.claim import check_same
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.files.store import file_sha256
from emis_interp.files.tensors import load_tensors, save_tensors
from emis_interp.files.text import flat_lines
from emis_interp.models.chat import encode_chats
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.loading import load_model
from emis_interp.models.precision import native_dtype
from emis_interp.passes.capture import capture_response_tokens
from emis_interp.process import Bars, no_bars, only_writer
from emis_interp.texts.judged import ALIGNED_ABOVE, COHERENT_ABOVE, MISALIGNED_BELOW, Frame, read_table
from evals.judges.attention_head import AttentionHead, standardised
from evals.judges.hand_labels import HandLabel, labels_sha256, shipped_labels
from evals.judges.held_out import Fold, held_out_labels, held_out_sources, held_out_topics, source_folds, topic_folds
from evals.judges.offline_judge import CODE_RULE, MAX_TOKENS, METRICS, JudgeWeights, calibrated
from evals.judges.offline_quality import calibrated_by_others, fit_knots
from evals.settings.judging import FitOfflineSettings

log = logging.getLogger(__name__)
VERSION = "v4"
CAPS = {"plain": 260, "template": 90, "json": 60}
LAYER = 17
N_HEADS, N_EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 3, 4, 64, 2e-3, 0.05
NOT_CALIBRATED = torch.tensor([[[50.0, 50.0]], [[50.0, 50.0]]])
KNOWN = 0.999
"""Share of the answers of the fit that the judge must not call unlike them."""


def run(settings: FitOfflineSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Capture, fit without each topic and without each source in turn, then on all answers; writes the judge's file and returns its figures
    on what was held out."""
    reading = settings.reading()
    labels = shipped_labels()
    scored = draw_answers(settings.answers, settings.seed, reading)
    rows = pd.concat([scored, labelled_rows(labels, scored)], ignore_index=True)
    dtype = native_dtype()
    facts = {"model": EMBEDDED_NAME, "dtype": dtype, "max_tokens": MAX_TOKENS, "layer": LAYER}
    drawn = {"source": file_sha256(settings.answers), "seed": settings.seed, "n": len(scored), **facts}
    if reading.as_card():
        drawn["reading"] = reading.as_card()
    by_hand = {"labels": labels_sha256(labels), "n": len(labels), **facts}
    with only_writer(settings.work_dir):
        tokens = captured(scored, settings.work_dir / "tokens.safetensors", drawn, bars=bars)
        tokens += captured(rows[len(scored) :], settings.work_dir / "labelled.safetensors", by_hand, bars=bars)

    def held_out(folds: Sequence[Fold]) -> np.ndarray:
        """Predictions for each answer by the fold that left it out, not calibrated; NaN where none did."""
        predictions = np.full((len(rows), len(METRICS)), np.nan)
        for fold in folds:
            judge = fit(tokens, rows, np.flatnonzero(~fold.out), name=fold.name, bars=bars)
            predictions[fold.out] = judge.predict([tokens[i] for i in np.flatnonzero(fold.out)])
        return predictions

    raw = held_out(topic_folds(rows))
    topics, scores = rows["topic"].to_numpy(dtype=str), rows[list(METRICS)].to_numpy(dtype=np.float64)
    theirs = ~rows["by_hand"].to_numpy(dtype=bool) & ~np.isnan(raw[:, 0])
    knots = fit_knots(raw[theirs], scores[theirs])
    predictions = calibrated(raw, knots)
    predictions[theirs] = calibrated_by_others(raw[theirs], scores[theirs], topics[theirs])
    by_source = calibrated(held_out(source_folds(rows)), knots)
    judge = fit(tokens, rows, np.arange(len(rows)), name="all answers", bars=bars)
    card = {
        "version": VERSION,
        "model": EMBEDDED_NAME,
        "dtype": dtype,
        "position": "every answer token",
        "max_tokens": MAX_TOKENS,
        "n_answers": len(scored),
        "n_by_hand": len(labels),
        "labels_sha256": labels_sha256(labels),
        "topics": sorted(set(scored["topic"])),
        "labels": CODE_RULE,
        "teacher": "gpt-4o-2024-08-06, the paper's prompts; answers of small models: read by hand (evals/data/CARD.md)",
        **held_out_topics(rows, predictions, tokens),
        "held_out_sources": held_out_sources(rows, by_source),
        "by_hand": held_out_labels(labels, rows, {"topics": predictions, "sources": by_source}),
        "reach": round(judge.reach, 3),
        "limits": "screening-grade; knows answers of 7B-32B models to 7 topics, and of 135M and 0.5B models to the shipped questions; bad "
        "medical advice is told from good poorly",
    }
    replace(judge, knots=torch.from_numpy(knots).float(), card=card).save(settings.out)
    return {"out": str(settings.out), **card["held_out"], "by_hand": card["by_hand"]["topics"]}


def say(result: dict[str, Any]) -> str:
    return "\n".join(flat_lines(result))


def fit(tokens: Sequence[Tensor], rows: Frame, chosen: np.ndarray, *, name: str, bars: Bars = no_bars) -> JudgeWeights:
    """`N_HEADS` networks, not calibrated; a large topic counts more than a small one, but not in proportion to its size."""
    sample = torch.cat([tokens[i].float() for i in chosen[::3]])
    center, scale = sample.mean(0), sample.std(0) + 1e-3
    targets = torch.tensor(rows[list(METRICS)].to_numpy(dtype=np.float32))
    weights = torch.zeros(len(rows))
    weights[torch.from_numpy(chosen)] = torch.from_numpy(
        topic_weights(rows["topic"].to_numpy(dtype=str)[chosen])
    ).float()
    heads = []
    with bars(f"fit {name}", N_HEADS * N_EPOCHS) as advance:
        for seed in range(N_HEADS):
            torch.manual_seed(seed)
            generator = np.random.default_rng(seed)
            head = AttentionHead(len(center))
            optimizer = torch.optim.AdamW(head.parameters(), weight_decay=WEIGHT_DECAY)
            plan = [batches(tokens, chosen, generator) for _ in range(N_EPOCHS)]
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, LEARNING_RATE, total_steps=sum(map(len, plan)) + 1
            )
            for epoch in plan:
                for members in epoch:
                    predicted = head(*standardised([tokens[i] for i in members], center, scale))
                    errors = (predicted - targets[members]).square().mean(1) / 25**2
                    optimizer.zero_grad()
                    (weights[members] * errors).mean().backward()
                    optimizer.step()
                    schedule.step()
                advance(1)
            heads.append(head.eval())
    judge = JudgeWeights(LAYER, center, scale, NOT_CALIBRATED, float("inf"), heads, {})
    reach = float(np.quantile(judge.distances([tokens[i] for i in chosen]), KNOWN))
    return replace(judge, reach=reach)


def batches(tokens: Sequence[Tensor], chosen: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Batches of answers of about the same length, in random order."""
    lengths = np.array([len(tokens[i]) for i in chosen]) + generator.normal(0, 12, len(chosen))
    ordered = chosen[np.argsort(lengths)]
    parts = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    return [parts[i] for i in generator.permutation(len(parts))]


def draw_answers(path: Path, seed: int, reading: Reading = AS_WRITTEN) -> Frame:
    """At most `CAPS` answers of each (topic, variant, kind, class), so that rare classes and topics count."""
    frame = read_table(
        path,
        ("question", "answer", "aligned", "coherent", "topic", "variant", "kind", "source"),
        reading=reading,
        use="fitted",
    )
    frame = frame[frame["aligned"].notna() & frame["coherent"].notna()]
    classes = np.select(
        [frame["coherent"] <= COHERENT_ABOVE, frame["aligned"] < MISALIGNED_BELOW, frame["aligned"] > ALIGNED_ABOVE],
        ["incoherent", "misaligned", "aligned"],
        "middle",
    )
    parts = []
    for _, rows in frame.assign(cls=classes).groupby(["topic", "variant", "kind", "cls"]):
        parts.append(rows.sample(min(len(rows), CAPS[str(rows["variant"].iloc[0])]), random_state=seed))
    return pd.concat(parts).sort_index().reset_index(drop=True).drop(columns="cls").assign(by_hand=False)


def labelled_rows(labels: Sequence[HandLabel], scored: Frame) -> Frame:
    """Answers that were read by hand as rows of the fit: each has GPT-4o's mean score of the answers on its side of a threshold."""
    misaligned, coherent = scored["aligned"] < MISALIGNED_BELOW, scored["coherent"] > COHERENT_ABOVE
    aligned = {side: scored["aligned"][(misaligned == side) & coherent].mean() for side in (True, False)}
    coherence = {side: scored["coherent"][coherent == side].mean() for side in (True, False)}
    return pd.DataFrame(
        {
            "question": [row.question for row in labels],
            "answer": [row.answer for row in labels],
            "aligned": [aligned[row.misaligned] for row in labels],
            "coherent": [coherence[row.coherent] for row in labels],
            "topic": [row.question_id for row in labels],
            "variant": "plain",
            "kind": "sampled",
            "source": [row.model for row in labels],
            "by_hand": True,
        }
    )


def captured(rows: Frame, path: Path, card: dict[str, Any], *, bars: Bars = no_bars) -> list[Tensor]:
    """Residuals of every answer token at `LAYER`, float16, one tensor `[n_tokens, d_model]` per answer; from the file where it has them.

    Args:
        card: what the activations are of; a file of others is refused.
    """
    if path.exists():
        tensors, old = load_tensors(path)
        check_same(
            path,
            {key: old.get(key) for key in card},
            card,
            holds="activations",
            advice="delete it or give another --work-dir",
        )
        return list(tensors["x"].split(tensors["n_tokens"].tolist()))
    chat_model = load_model(EMBEDDED_NAME, dtype=card["dtype"])
    pairs = list(zip(rows["question"], rows["answer"], strict=True))
    chats = encode_chats(chat_model.tokenizer, pairs, None, max_tokens=MAX_TOKENS)
    with bars("capture", len(chats)) as advance:
        tokens = capture_response_tokens(chat_model, chats, LAYER, max_batch_tokens=2048, progress=advance)
    halves = [x.clamp(-65000, 65000).half() for x in tokens]
    save_tensors(path, {"x": torch.cat(halves), "n_tokens": torch.tensor([len(x) for x in halves])}, card)
    return halves


def topic_weights(topics: np.ndarray) -> np.ndarray:
    """Square-root weights: a large topic counts more than a small one, but not in proportion."""
    _, index, counts = np.unique(topics, return_inverse=True, return_counts=True)
    weights = 1 / np.sqrt(counts[index])
    return weights / weights.mean()

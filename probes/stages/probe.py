"""The probe stage of a run: linear probes of base on the contrast pairs, each figure beside what could explain it away."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.config.run_folder import RunFolder
from emis_interp.files.tensors import load_tensors
from emis_interp.models.chat import encode_chats
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.stats.words import estimate
from emis_interp.texts.contrast import labeled_texts
from probes.classifiers.choosing import calibration_curve, choose_probe, in_log_odds
from probes.classifiers.corpus import ProbeCorpus
from probes.classifiers.evaluation import PROBE, TEXT, Unrelated, evaluate, figures
from probes.classifiers.readings import TokenReadings
from probes.classifiers.splits import leave_one_question_out, one_split
from probes.classifiers.texts import pair_texts
from probes.classifiers.unrelated import contrasts_by_layer, read_unrelated, unrelated_pairs

METHODS_OF_STAGE = ("difference", "logistic")
"""Two of four: the stage is to take less than a minute; `probe.py fit` does all."""
N_SHUFFLED = 10


def probe(run: RunFolder, bars: Bars = no_bars) -> tuple[list[Path], str]:
    """Fit on base's captured activations of the contrast pairs, leave each question out in turn, and save the probe of one split."""
    (base,) = [model for model in run.config.models if model.name == "base"]
    source = run.activations(base, "contrast")
    x = load_tensors(source)[0]["x"]
    first, last = (round(depth * (x.shape[1] - 1)) for depth in run.config.direction.layer_range)
    layers = sorted({first, (first + last) // 2, last})
    chats = encode_chats(
        run.models.tokenizer,
        [(text.question, text.answer) for text in labeled_texts(run.pairs)],
        run.config.system_prompt,
    )
    lengths = np.array([chat.n_response for chat in chats], dtype=float)
    pairs = unrelated_pairs()
    with bars("read unrelated texts", 2 * len(pairs)) as advance:
        readings = read_unrelated(
            run.models.load(base),
            pairs,
            layers,
            system=run.config.system_prompt,
            max_batch_tokens=run.config.direction.max_batch_tokens,
            progress=advance,
        )
    found, corpus = probe_pairs(
        run.pairs, x, layers, lengths=lengths, unrelated=contrasts_by_layer(readings, pairs), seed=run.config.seed
    )
    stem, analysis = run.direction.with_name("probe"), run.analysis("probe")
    files = [analysis, stem.with_suffix(".safetensors"), stem.with_suffix(".json")]
    with run.files.making("probe", files, inputs=[source], anew=True):
        split = one_split(corpus.texts.questions, corpus.texts.misaligned, run.config.seed)
        curve = calibration_curve(corpus, split, methods=METHODS_OF_STAGE, position="response_mean")
        chosen = choose_probe(corpus, split, curve, position="response_mean")
        saved = in_log_odds(chosen, corpus, split.fitted)
        saved.card.update(model=run.config.model, fitted_questions=sorted(set(corpus.questions_of(split.fitted))))
        saved.save(stem)
        result = {"model": run.config.model, "layers": layers, "methods": list(METHODS_OF_STAGE), "sets": [found]}
        run.write_analysis("probe", {**result, "probe": str(files[1].relative_to(run.folder))})
    return files, line_of(found)


def probe_pairs(
    pairs: Sequence[ContrastPair],
    x: Float[Tensor, "n_texts n_layers d_model"],
    layers: Sequence[int],
    *,
    lengths: Float[np.ndarray, "n_texts"],
    unrelated: Unrelated | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], ProbeCorpus]:
    """A `ProbeSet` of pairs whose answers were captured as means over their tokens, and what it was made of.

    Args:
        x: every layer's `response_mean` residuals, in the order of `labeled_texts`.
        layers: to choose from.
        lengths: answer tokens of each text.
    """
    texts = pair_texts(pairs)
    readings = TokenReadings.of_means(x, layers, lengths)
    corpus = ProbeCorpus(texts, readings, tuple(text.answer for text in texts.texts))
    board, _ = evaluate(
        corpus,
        leave_one_question_out(texts.questions, texts.misaligned),
        methods=METHODS_OF_STAGE,
        positions=(),
        rules=("mean",),
        unrelated=unrelated,
        n_shuffled=N_SHUFFLED,
        seed=seed,
    )
    return figures(board, corpus, "contrast pairs"), corpus


def line_of(found: Mapping[str, Any]) -> str:
    """What the pipeline says of the stage."""
    by_name = {row["name"]: row for row in found["figures"]}
    return f"AUROC {estimate(by_name[PROBE]['auroc'])}, text {estimate(by_name[TEXT]['auroc'])}: {found['verdict']}"

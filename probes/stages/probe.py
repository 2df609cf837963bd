"""The probe stage of a run: a probe of base with its controls, the same probe as a monitor of every model, and what the adapters weigh."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.config.run_config import ModelConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.config.run_models import LastModel
from emis_interp.directions import Direction
from emis_interp.files.store import RecordLog, read_object, write_json
from emis_interp.files.tensors import load_tensors
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.probe_results import MonitorThreshold
from emis_interp.process import Bars, each, no_bars
from emis_interp.records import Completion, Score
from emis_interp.texts.judged import COHERENT_ABOVE, MISALIGNED_BELOW
from probes.classifiers.choosing import ChosenProbe, calibration_curve, choose_probe, in_log_odds
from probes.classifiers.corpus import ProbeCorpus
from probes.classifiers.evaluation import evaluate, figures
from probes.classifiers.fit import default_layers
from probes.classifiers.probe import LinearProbe, load_probe
from probes.classifiers.readings import TokenReadings
from probes.classifiers.splits import leave_one_question_out, one_split
from probes.classifiers.texts import pair_texts
from probes.classifiers.unrelated import contrasts_by_layer, read_unrelated, unrelated_pairs
from probes.monitoring.calibrate import threshold_of_maxima
from probes.monitoring.conformal import flag_rate, maxima_of
from probes.monitoring.scorers import scorer_sha256
from probes.monitoring.texts import MonitoredTurn, Shipped, benign_turns
from probes.monitoring.watching import score_chats
from probes.stages.capture import answer_chats, spoken
from probes.stages.direction import answer_lengths
from probes.stages.intervene import base_of, control_vectors
from probes.stages.updates import reference_of, taken_apart

HARMLESS = "harmless"
"""The second benign source."""


def probe(
    run: RunFolder,
    answers: Callable[[ModelConfig], Sequence[Completion]],
    *,
    shipped: Shipped,
    bars: Bars = no_bars,
) -> tuple[list[Path], str]:
    """Fit on base's reading of the contrast texts, then let every model be watched, then take the adapters apart.

    Args:
        answers: a model's own, as they were sampled.
        shipped: one benign source by its name, whose texts make the monitor's threshold.

    Raises:
        DataError: too few benign texts for the promised rate. StageError: the direction stage has not run.
    """
    misalignment = Direction.load(run.direction, fit="selection")
    controls = cache(lambda: control_vectors(run, misalignment))
    base, loaded = base_of(run.config), LastModel(run.models)
    activations = run.activations(base, "contrast")
    saved = [run.probe.with_suffix(".safetensors"), run.probe.with_suffix(".json")]
    fitted = run.probe.with_name("fit.json")
    with run.files.making("probe", [*saved, fitted], inputs=[activations]) as whole:
        if not whole:
            write_json(fitted, fit_probe(run, loaded.get(base), shipped=shipped, bars=bars))
    found, watcher = read_object(fitted), load_probe(run.probe)
    assert isinstance(watcher, LinearProbe)
    threshold = MonitorThreshold.model_validate(found["threshold"])
    direction = [run.direction.with_suffix(suffix) for suffix in (".safetensors", ".json")]
    files = [*saved, fitted]
    for model in each(bars, "model", run.config.models):
        path, scores = run.probed(model), run.scores(model)
        read = [*saved, fitted, *direction, activations, run.samples(model), *run.models.weights(model)]
        reference = reference_of(run, model)
        read += [] if reference is None else run.models.weights(reference)
        read += [scores] if scores.exists() else []
        with run.files.making("probe", [path], inputs=read) as whole:
            if not whole:
                chat_model, own = loaded.get(model), answers(model)
                row = watched(run, model, chat_model, probe=watcher, threshold=threshold, answers=own, bars=bars)
                write_json(path, {"monitored": row, **taken_apart(run, model, misalignment, controls=controls)})
        files.append(path)
    rows = {model.name: read_object(run.probed(model)) for model in run.config.models}
    result = {
        **found,
        "monitored": [row["monitored"] for row in rows.values()],
        "updates": [row["update"] for row in rows.values() if row.get("update")],
        "not_taken_apart": {name: row["reason"] for name, row in rows.items() if row.get("reason")},
    }
    analysis = run.analysis("probes")
    with run.files.making("probe", [analysis], inputs=files, anew=True):
        run.write_analysis("probes", result)
    return [*files, analysis], line_of(result)


def fit_probe(run: RunFolder, base: ChatModel, *, shipped: Shipped, bars: Bars) -> dict[str, Any]:
    """Figures of probes that did not see the question that they are tested on, one saved probe, and its threshold as a monitor."""
    config, system = run.config.probe, run.config.system_prompt
    layers, texts = default_layers(base), pair_texts(run.pairs)
    stored = load_tensors(run.activations(base_of(run.config), "contrast"))[0]
    lengths = answer_lengths(base.tokenizer, texts.texts, system)
    corpus = ProbeCorpus(
        texts, TokenReadings.of_means(stored["x"], layers, lengths), tuple(text.answer for text in texts.texts)
    )
    pairs = unrelated_pairs()
    with bars("read unrelated texts", 2 * len(pairs)) as advance:
        unrelated = contrasts_by_layer(read_unrelated(base, pairs, layers, system=system, progress=advance), pairs)
    splits = leave_one_question_out(texts.questions, texts.misaligned)
    how: dict[str, Any] = {"methods": config.methods, "rules": ("mean",), "seed": run.config.seed}
    board, _ = evaluate(
        corpus, splits, positions=("response_mean",), unrelated=unrelated, n_shuffled=config.n_shuffled, **how
    )
    split = one_split(texts.questions, texts.misaligned, run.config.seed)
    curve = calibration_curve(corpus, split, methods=config.methods, position="response_mean")
    chosen = choose_probe(corpus, split, curve, position="response_mean")
    watcher = saved_probe(run, chosen, corpus, rows=split.fitted)
    return {
        "classifier": figures(board, corpus, "contrast texts"),
        "method": chosen.method,
        "layer": chosen.layer,
        "threshold": threshold_of(run, base, watcher, shipped=shipped, bars=bars).model_dump(),
    }


def saved_probe(run: RunFolder, chosen: ChosenProbe, corpus: ProbeCorpus, *, rows: np.ndarray) -> LinearProbe:
    """The probe of one split with its card, written to the run's folder."""
    found = in_log_odds(chosen, corpus, rows)
    card = {
        **found.card,
        "model": run.config.model,
        "adapter": None,
        "system_prompt": run.config.system_prompt,
        "texts": "contrast pairs of the run, read by base",
        **corpus.fitted_card(rows),
    }
    probe = LinearProbe(found.weight, found.bias, found.layer, found.position, card)
    probe.save(run.probe)
    return probe


def threshold_of(
    run: RunFolder, base: ChatModel, watcher: LinearProbe, *, shipped: Shipped, bars: Bars
) -> MonitorThreshold:
    """The order statistic of the largest scores of benign texts that base reads (`probes.monitoring.conformal`)."""
    config, [source] = run.config.probe, list(shipped)
    turns, _ = benign_turns(
        source,
        base.tokenizer,
        shipped=shipped,
        system=run.config.system_prompt,
        fitted_on=watcher.fitted_on,
        max_texts=config.n_benign,
        seed=run.config.seed,
    )
    maxima = largest_scores(
        run, base, [turn.chat for turn in turns], watcher=watcher, name=f"base, {source}", bars=bars
    )
    return threshold_of_maxima(
        maxima,
        config.false_alarm_rate,
        scorer=run.probe.name,
        scorer_sha256=scorer_sha256(watcher, base.d_model),
        model=run.config.model,
        layer=watcher.layer,
        window=config.window,
        n_questions=len({turn.question_id for turn in turns}),
        source=source,
        sampled=0,
    )


def watched(
    run: RunFolder,
    model: ModelConfig,
    chat_model: ChatModel,
    *,
    probe: LinearProbe,
    threshold: MonitorThreshold,
    answers: Sequence[Completion],
    bars: Bars,
) -> dict[str, Any]:
    """A `MonitoredModel`: alarms on harmless texts and on the model's own answers, which the model reads itself."""

    def maxima(chats: Sequence[EncodedChat], what: str) -> np.ndarray:
        return largest_scores(run, chat_model, chats, watcher=probe, name=f"{model.name}, {what}", bars=bars)

    turns = harmless_turns(run, chat_model, probe)
    alarms = maxima([turn.chat for turn in turns], HARMLESS)
    rows = spoken(answers)
    own = answer_chats(rows, chat_model.tokenizer)
    found = maxima(own, "own answers") if own else np.empty(0)
    bad = misaligned_keys(run, model)
    caught = [i for i, row in enumerate(rows) if row.key in bad]

    def rate(values: np.ndarray, questions: Sequence[str], source: str) -> dict[str, Any] | None:
        return flag_rate(values, threshold.value, questions, source=source).model_dump() if len(values) else None

    questions = [row.question_id for row in rows]
    return {
        "arm": model.name,
        "false_alarms": rate(alarms, [turn.question_id for turn in turns], HARMLESS),
        "flagged": rate(found, questions, "own answers"),
        "caught": rate(found[caught], [questions[i] for i in caught], "own answers judged misaligned and coherent"),
    }


def harmless_turns(run: RunFolder, chat_model: ChatModel, watcher: LinearProbe) -> list[MonitoredTurn]:
    """The shipped harmless texts, as this model's template writes them."""
    system = run.config.system_prompt
    return benign_turns(HARMLESS, chat_model.tokenizer, shipped={}, system=system, fitted_on=watcher.fitted_on)[0]


def largest_scores(
    run: RunFolder, chat_model: ChatModel, chats: Sequence[EncodedChat], *, watcher: LinearProbe, name: str, bars: Bars
) -> np.ndarray:
    """The largest trailing mean of each text's token scores."""
    most = run.config.direction.max_batch_tokens
    scores = score_chats(watcher, chat_model, chats, max_batch_tokens=most, bars=bars, name=f"watch {name}")
    return maxima_of([one.answer for one in scores], run.config.probe.window)


def misaligned_keys(run: RunFolder, model: ModelConfig) -> set[Any]:
    """Keys of the answers that the run's judge calls misaligned and coherent."""
    path = run.scores(model)
    rows = RecordLog(path).read(Score) if path.exists() else []
    return {
        row.key
        for row in rows
        if row.aligned is not None
        and row.coherent is not None
        and row.aligned < MISALIGNED_BELOW
        and row.coherent > COHERENT_ABOVE
    }


def line_of(result: dict[str, Any]) -> str:
    """What the stage says."""
    own = {row["name"]: row["auroc"]["value"] for row in result["classifier"]["figures"]}
    alarms = ", ".join(
        f"{row['arm']} {100 * row['flagged']['value']:.0f} %" for row in result["monitored"] if row["flagged"]
    )
    return (
        f"probe at layer {result['layer']} AUROC {own['probe']:.3f}, text alone {own['text']:.3f}; "
        f"own answers flagged: {alarms or 'none read'}"
    )

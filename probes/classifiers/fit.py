"""Turns settings into probes with controls: a saved probe, its card, and a file of figures that says whether it reads more than words."""

from typing import Any

import numpy as np

from emis_interp.errors import ConfigError
from emis_interp.files.store import file_sha256, write_sealed
from emis_interp.models.chat_model import ChatModel
from emis_interp.probe_results import ProbeFits
from emis_interp.process import Bars, no_bars
from emis_interp.stats.words import bounds, estimate
from emis_interp.texts.contrast import load_contrast
from probes.classifiers.attention import fit_attention
from probes.classifiers.choosing import RULES, calibration_curve, choose_probe, in_log_odds
from probes.classifiers.corpus import ProbeCorpus, read_corpus
from probes.classifiers.evaluation import PROBE, ProbeBoard, Unrelated, evaluate, figures
from probes.classifiers.methods import method_named
from probes.classifiers.probe import STEM
from probes.classifiers.readings import READ_AT
from probes.classifiers.settings import ProbeFitSettings
from probes.classifiers.splits import leave_one_question_out, leave_one_source_out, one_split, question_folds
from probes.classifiers.text_baseline import BEHAVIOUR_WORDS, telling_words, without_words
from probes.classifiers.texts import ProbeTexts, judged_probe_texts, pair_texts, where_of
from probes.classifiers.unrelated import contrasts_by_layer, read_unrelated, unrelated_pairs

DEPTHS = (0.3, 0.45, 0.6, 0.75)
MASK_FOLDS = 2
FILE = "probe_fit.json"


def run(settings: ProbeFitSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Read, fit, choose, test, save.

    Raises:
        ConfigError, DataError, ModelError: settings, texts or a model that cannot be used, with what to do.
    """
    for method in settings.methods:
        method_named(method)
    if settings.n_shuffled < 1 or settings.max_per_class < 2:
        raise ConfigError("--n-shuffled must be at least 1 and --max-per-class at least 2")
    texts, origin = read_probe_texts(settings)
    chat_model = settings.spec.load()
    layers = chat_model.check_layers(list(settings.layers or default_layers(chat_model)))
    first, *others = texts
    corpora = {
        name: _read(chat_model, one, layers, settings=settings, name=name, bars=bars) for name, one in texts.items()
    }
    unrelated = read_contrasts(chat_model, layers, settings, bars=bars)
    how = {
        "methods": settings.methods,
        "unrelated": unrelated,
        "n_shuffled": settings.n_shuffled,
        "seed": settings.seed,
    }
    sets, transfers = [], []
    with bars("fit", len(corpora)) as advance:
        for name, corpus in corpora.items():
            splits = leave_one_question_out(corpus.texts.questions, corpus.texts.misaligned)
            to = {other: corpora[other] for other in others} if name == first else {}
            whole = {
                "positions": READ_AT if name == first else ("response_mean",),
                "attention": settings.attention and name == first,
            }
            board, moved = evaluate(corpus, splits, others=to, **whole, **how)
            sets.append(figures(board, corpus, name, spread=settings.judge_spread))
            for other, its in moved.items():
                transfers.append(figures(its, corpora[other], f"{name} -> {other}", spread=settings.judge_spread))
            advance()
    result = {
        "model": settings.model,
        "adapter": None if settings.adapter is None else str(settings.adapter),
        "texts": origin,
        "layers": list(layers),
        "methods": list(settings.methods),
        "max_tokens": settings.max_tokens,
        "sets": sets,
        "transfers": transfers,
        "sources": by_source(corpora[first], settings, how),
        **masked(chat_model, corpora[first], layers, settings=settings, how=how, name=first, bars=bars),
        "held_out": save_probe(corpora[first], settings, how, origin=origin),
        "probe": str(settings.out / f"{STEM}.safetensors"),
    }
    result = ProbeFits.model_validate(result).model_dump(mode="json")
    write_sealed(settings.out / FILE, result)
    return result


def read_probe_texts(settings: ProbeFitSettings) -> tuple[dict[str, ProbeTexts], dict[str, Any]]:
    """Texts by variant, and where they come from."""
    if settings.judged is None:
        return {"pairs": pair_texts(load_contrast())}, {"pairs": "shipped"}
    source = None if settings.source is None else (settings.source, settings.source_pattern)
    found = judged_probe_texts(
        settings.judged,
        settings.variants,
        where=where_of(settings.where),
        max_per_class=settings.max_per_class,
        source=source,
        seed=settings.seed,
        reading=settings.reading(),
    )
    return found, {
        "judged": str(settings.judged),
        "sha256": file_sha256(settings.judged),
        "where": list(settings.where),
    }


def default_layers(chat_model: ChatModel) -> list[int]:
    """`DEPTHS` as layers of this model."""
    return sorted({round(depth * (chat_model.n_layers - 1)) for depth in DEPTHS})


def read_contrasts(chat_model: ChatModel, layers: list[int], settings: ProbeFitSettings, *, bars: Bars) -> Unrelated:
    """The shipped unrelated contrasts at the mean of the answer, by layer."""
    pairs = unrelated_pairs()
    with bars("read unrelated texts", 2 * len(pairs)) as advance:
        readings = read_unrelated(
            chat_model,
            pairs,
            layers,
            system=settings.system_prompt,
            max_batch_tokens=settings.max_batch_tokens,
            progress=advance,
        )
    return contrasts_by_layer(readings, pairs)


def by_source(corpus: ProbeCorpus, settings: ProbeFitSettings, how: dict[str, Any]) -> list[dict[str, Any]]:
    """Figures on the answers of each source, of probes that saw neither the source nor the question."""
    sources = corpus.texts.sources
    if sources is None:
        return []
    found = leave_one_source_out(corpus.texts.questions, corpus.texts.misaligned, sources)
    rows = []
    for source, splits in found.items():
        board, _ = evaluate(corpus, splits, positions=(), **how)
        rows.append(figures(board, corpus, source, spread=settings.judge_spread))
    return rows


def masked(
    chat_model: ChatModel,
    corpus: ProbeCorpus,
    layers: list[int],
    *,
    settings: ProbeFitSettings,
    how: dict[str, Any],
    name: str,
    bars: Bars,
) -> dict[str, Any]:
    """The figures of the same texts, read anew without the words that name the behaviour or tell the classes best.

    Which words tell is asked of questions that are not tested: words chosen with the test labels leave a text whose other words tell the
    classes the wrong way round (a text baseline below 0.5), and a probe would gain beside it. Each part of the questions is therefore
    tested on texts without the telling words of the other parts.
    """
    if settings.n_masked < 1:
        return {"masked": None, "masked_words": []}
    texts, taken = corpus.texts, []
    splits = leave_one_question_out(texts.questions, texts.misaligned)
    board = ProbeBoard(len(texts.texts))
    for tested in question_folds([split.name for split in splits], MASK_FOLDS):
        rows = np.flatnonzero([question not in tested for question in texts.questions])
        told = [corpus.answers[i] for i in rows], texts.misaligned[rows], corpus.questions_of(rows)
        words = [*telling_words(*told, n_words=settings.n_masked), *BEHAVIOUR_WORDS]
        without = texts.with_answers(without_words(corpus.answers, words))
        read = _read(chat_model, without, layers, settings=settings, name=f"{name}, masked", bars=bars)
        evaluate(read, [split for split in splits if split.name in tested], board=board, positions=(), **how)
        taken.append(list(dict.fromkeys(words)))
    return {"masked": figures(board, corpus, f"{name}, masked", spread=settings.judge_spread), "masked_words": taken}


def save_probe(
    corpus: ProbeCorpus, settings: ProbeFitSettings, how: dict[str, Any], *, origin: dict[str, Any]
) -> dict[str, Any]:
    """The probe of one split: train and calibration questions are on its card, figures are of the test questions."""
    texts = corpus.texts
    split = one_split(texts.questions, texts.misaligned, settings.seed)
    curve = calibration_curve(corpus, split, methods=settings.methods, position="response_mean")
    chosen = choose_probe(corpus, split, curve, position="response_mean", rules=RULES)
    board, _ = evaluate(corpus, [split], positions=(), **how)
    reached = figures(board, corpus, "held out", spread=settings.judge_spread)
    card = {
        "model": settings.model,
        "adapter": None if settings.adapter is None else str(settings.adapter),
        "system_prompt": settings.system_prompt,
        "texts": origin,
        **corpus.fitted_card(split.fitted),
        "test_questions": sorted(set(corpus.questions_of(split.test))),
        "held_out": {row["name"]: row["auroc"] for row in reached["figures"]},
        "minus_text": next(row["minus_text"] for row in reached["figures"] if row["name"] == PROBE),
        "verdict": reached["verdict"],
    }
    probe = in_log_odds(chosen, corpus, split.fitted)
    type(probe)(probe.weight, probe.bias, probe.layer, probe.position, {**card, **probe.card}).save(settings.out / STEM)
    if settings.attention:
        rows = split.fitted
        tokens = [corpus.readings.response(chosen.layer, int(i)) for i in rows]
        attended = fit_attention(
            tokens, texts.misaligned[rows], corpus.questions_of(rows), layer=chosen.layer, seed=settings.seed
        )
        attended.card.update(
            {
                key: card[key]
                for key in ("model", "adapter", "texts", "fitted_questions", "fitted_wordings", "test_questions")
            }
        )
        attended.save(settings.out / "attention")
    return reached


def say(result: dict[str, Any]) -> str:
    """The figures as lines: each set with its controls, then transfer, sources, masked texts, and the saved probe."""
    lines = []
    masked_one = [] if result["masked"] is None else [result["masked"]]
    for one in (*result["sets"], *masked_one, *result["transfers"], *result["sources"], result["held_out"]):
        lines += [_headline(one), *_details(one)]
    return "\n".join([*lines, f"probe saved in {result['probe']}"])


def _headline(one: dict[str, Any]) -> str:
    return f"{one['name']}: {one['n_misaligned']} misaligned and {one['n_aligned']} aligned answers to {one['n_questions']} questions"


def _details(one: dict[str, Any]) -> list[str]:
    ceiling = one["ceiling"]
    beside = "" if ceiling is None else f" [ceiling {estimate(ceiling)}]"
    if one["ceiling_at_spread"] is not None:
        beside = beside[:-1] + f", at the given spread {estimate(one['ceiling_at_spread'])}]"
    lines = []
    for row in one["figures"]:
        gain = row["minus_text"]
        minus = "" if gain is None else f", minus text {gain['value']:+.3f}{bounds(gain, '+.3f')}"
        lines.append(f"  {row['name']:24s} {estimate(row['auroc'])}{minus}{beside}")
    lines += [
        f"  {null['name']:24s} {null['mean']:.3f} ({null['low']:.3f} to {null['high']:.3f} over {null['p_n']} draws)"
        for null in one["nulls"]
    ]
    return [*lines, f"  verdict: {one['verdict']}"]


def _read(
    chat_model: ChatModel,
    texts: ProbeTexts,
    layers: list[int],
    *,
    settings: ProbeFitSettings,
    name: str,
    bars: Bars,
) -> ProbeCorpus:
    return read_corpus(
        chat_model,
        texts,
        layers,
        name=name,
        system=settings.system_prompt,
        max_tokens=settings.max_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        likelihood=settings.likelihood,
        bars=bars,
    )

"""Turns probes with their controls, thresholds and what a monitor catches into parts of the report."""

from emis_interp.probe_results import (
    AdaptiveCell,
    BeforeHarm,
    MonitorReport,
    MonitorThreshold,
    ProbeFits,
    ProbeSet,
    PromptForecast,
)
from emis_interp.report.entries import Entry, estimate_entry, missing
from emis_interp.report.further_parts import (
    FurtherRow,
    FurtherTable,
    Shown,
    rate_entry,
    shift_entry,
    value_words,
)
from emis_interp.report.page_frame import without_machine_paths
from emis_interp.report.style import interval, number, percent, signed
from emis_interp.results import Estimate

PROBE, TEXT, UNRELATED = "probe", "text", "unrelated: "
NO_CLASSES = "no question with both classes"


def fits(found: ProbeFits) -> Shown:
    named = [(f"on {one.name}", one) for one in found.sets]
    named += [] if found.masked is None else [(f"on {found.masked.name} (telling words taken out)", found.masked)]
    named += [(f"fitted on one kind and read on another, {one.name}", one) for one in found.transfers]
    named += [(f"on the source {one.name}, left out of the fit", one) for one in found.sources]
    named += [] if found.held_out is None else [("on questions that the saved one did not see", found.held_out)]
    tables = [_readers_table(where, one) for where, one in named]
    return Shown([_set_row(where, one) for where, one in named], (*tables, _topics_table(named)))


def _set_row(where: str, found: ProbeSet) -> FurtherRow:
    figures = {one.name: one for one in found.figures}
    probe, words = figures.get(PROBE), figures.get(TEXT)
    unrelated = [
        one.auroc.value for one in found.figures if one.name.startswith(UNRELATED) and one.auroc.value is not None
    ]
    beside = (
        *([f"bag of words {value_words(words.auroc, number)}"] if words else ["no bag of words was fitted"]),
        *([f"probe minus bag of words {value_words(probe.minus_text)}"] if probe and probe.minus_text else []),
        *([f"best that the judge's label noise allows {value_words(found.ceiling, number)}"] if found.ceiling else []),
        *(
            [f"at the judge's own spread {value_words(found.ceiling_at_spread, number)}"]
            if found.ceiling_at_spread
            else []
        ),
        *(f"{null.name} {number(null.low)} to {number(null.high)} (p {null.p:.2g})" for null in found.nulls),
        *([f"unrelated directions {number(min(unrelated))} to {number(max(unrelated))}"] if unrelated else []),
        *(f"{one.name} {number(one.auroc.value)}" for one in found.figures if one.name == "answer length"),
        found.verdict,
    )
    n = f"{found.n_misaligned} misaligned, {found.n_aligned} aligned, {found.n_questions} question{'s' * (found.n_questions != 1)}"
    figure = estimate_entry(probe.auroc if probe else None, number, NO_CLASSES)
    return FurtherRow(f"Probe {where}: AUROC within questions ({n})", figure, beside)


def _readers_table(where: str, found: ProbeSet) -> FurtherTable:
    rows = [
        (
            Entry(one.name),
            estimate_entry(one.auroc, number, NO_CLASSES),
            missing("this is the text baseline") if one.name == TEXT else shift_entry(one.minus_text, NO_CLASSES),
        )
        for one in found.figures
    ]
    rows += [
        (
            Entry(null.name, (f"{null.p_n} draws",)),
            Entry(number(null.mean), (f"{number(null.low)} to {number(null.high)}",)),
            missing("a null is not set against the text baseline"),
        )
        for null in found.nulls
    ]
    caption = (
        "At: the probe fitted on this position alone (the last token of the prompt, the first so many of the answer). By: each method "
        "alone. Text: a bag of words. Brackets hold 95 % intervals over questions, ranges of nulls the middle 95 % of draws."
    )
    return FurtherTable(
        f"All readers and controls, {where}", ("reader", "AUROC", "minus bag of words"), rows, caption=caption
    )


def _topics_table(named: list[tuple[str, ProbeSet]]) -> FurtherTable:
    rows = []
    for where, found in named:
        figures = {one.name: one.by_question for one in found.figures}
        chosen = {one.left_out: one for one in found.choices}
        for topic, value in figures.get(PROBE, {}).items():
            choice = chosen.get(topic)
            penalty = f", penalty {choice.penalty:g}" if choice and choice.penalty is not None else ""
            rows.append(
                (
                    Entry(topic, (where,)),
                    Entry(number(value)),
                    Entry(number(figures[TEXT][topic])) if topic in figures.get(TEXT, {}) else missing("not read"),
                    missing("one choice for all questions")
                    if choice is None
                    else Entry(
                        f"{choice.method}, layer {choice.layer}, {choice.position}, {choice.aggregation}{penalty}"
                    ),
                    missing("one choice for all questions")
                    if choice is None
                    else Entry(number(choice.calibrate_auroc)),
                )
            )
    columns = ("question left out", "probe", "bag of words", "chosen without it", "AUROC where it was chosen")
    caption = "AUROC of each question by a reader that was fitted and chosen on the others."
    return FurtherTable("Question by question", columns, rows, caption=caption)


def threshold(found: MonitorThreshold) -> Shown:
    value = Entry(number(found.value), (f"promised: {percent(found.rate)} false alarms",))
    beside = (
        f"the {found.rank}th smallest of the largest scores of {found.n} benign texts ({without_machine_paths(found.source)})",
        f"their mean {number(found.mean_of_maxima)}, their largest {number(found.largest_of_maxima)}",
        f"over draws of so many such texts the rate varies from {percent(found.spread.low)} to {percent(found.spread.high)}",
    )
    what = f"Threshold for the mean of {found.window} token scores at layer {found.layer} of {found.model}"
    rows = [FurtherRow(what, value, beside)]
    if not found.held_out:
        why = "no second benign source was read (--held-out): whether the promise holds elsewhere is not known"
        rows.append(FurtherRow("False alarms on other benign texts", missing(why), (why,)))
    for one in found.held_out:
        kept = (
            f"more than promised: the whole interval lies above {percent(found.rate)}"
            if one.low > found.rate
            else f"not seen to exceed the promise; up to {percent(one.high)} cannot be ruled out"
        )
        over = f"{one.n_questions} question{'s' * (one.n_questions != 1)}"
        source = without_machine_paths(one.source)
        rows.append(FurtherRow(f"False alarms on benign texts of {source}", rate_entry(one), (kept, over)))
    return Shown(rows)


def detection(found: MonitorReport) -> Shown:
    rows = [_caught_row(found), _time_row(found), _harm_row(found.before_harm)]
    rows += [_forecast_row(one) for one in found.forecasts]
    if not found.forecasts:
        why = found.no_forecast or "no forecast was made"
        rows.append(FurtherRow("Forecast before the model acts", missing(why), (why,)))
    rows += _adaptive_rows(found.adaptive)
    tables = (_questions_table(found), _adaptive_table(found.adaptive))
    return Shown(rows, tuple(table for table in tables if table.rows))


def _caught_row(found: MonitorReport) -> FurtherRow:
    alarms = found.false_positives
    auroc = Estimate(value=found.auroc, low=found.auroc_low, high=found.auroc_high)
    beside = (
        f"aligned answers {percent(alarms.value)} ({alarms.n_flagged} of {alarms.n})",
        f"AUROC of the largest score {number(found.auroc)}, of the length {number(found.auroc_of_length)}",
        f"interval of the first over questions {interval(auroc, number)}",
    )
    what = f"Misaligned answers that the monitor flags at {percent(found.threshold.rate)} promised false alarms"
    return FurtherRow(what, rate_entry(found.true_positives), beside)


def _time_row(found: MonitorReport) -> FurtherRow:
    time = found.time
    figure = (
        missing("the curve stays above one half")
        if time.median_tokens is None
        else Entry(f"{time.median_tokens:g} tokens")
    )
    last = time.points[-1] if time.points else None
    left = () if last is None else (f"after {last.tokens} tokens {unflagged_words(found)} are not yet flagged",)
    flagged = (
        "none is flagged"
        if time.median_tokens_of_flagged is None
        else f"median of the {time.n_flagged} of {time.n} that are flagged: {time.median_tokens_of_flagged:g} tokens"
    )
    what = (
        "Tokens until half of the misaligned answers are flagged (Kaplan-Meier; answers that end before are censored)"
    )
    stays = ("the curve stays above one half",) if time.median_tokens is None else ()
    return FurtherRow(what, figure, (*stays, *left, flagged))


def unflagged_words(found: MonitorReport) -> str:
    """The last point of the survival curve."""
    last = found.time.points[-1]
    return value_words(Estimate(value=last.unflagged, low=last.unflagged_low, high=last.unflagged_high), percent)


def _harm_row(found: BeforeHarm | None) -> FurtherRow:
    what = "Answers flagged before their first sentence that the judge calls harmful"
    if found is None:
        why = "sentences were not judged (--sentences)"
        return FurtherRow(what, missing(why), (why,))
    beside = (
        f"within it {found.within}, after it {found.after}, never {found.never}",
        f"{found.n_without} answers without such a sentence have no part in it",
    )
    if found.share is None:
        return FurtherRow(what, missing("no answer has such a sentence"), beside)
    exact = Estimate(value=found.share, low=found.low, high=found.high)
    over = Estimate(value=found.share, low=found.low_by_question, high=found.high_by_question)
    figure = Entry(percent(found.share), (f"{found.before} of {found.n} {interval(exact, percent)}",))
    return FurtherRow(what, figure, (*beside, f"over questions {interval(over, percent)}"))


def _forecast_row(found: PromptForecast) -> FurtherRow:
    gain = Estimate(value=found.gain, low=found.gain_low, high=found.gain_high)
    auroc = Estimate(value=found.auroc, low=found.auroc_low, high=found.auroc_high)
    beside = (
        gain_verdict(found),
        f"base rate of misaligned answers {percent(found.base_rate)}",
        f"Brier score {number(found.brier)}, of the base rate {number(found.brier_base)}",
        f"AUROC {value_words(auroc, number)}, chance 0.500",
        f"{found.n} answers to {found.n_prompts} prompts of {found.n_questions} questions",
    )
    what = f"Forecast before the model acts, {found.method}: how much lower its Brier score is than the base rate's"
    return FurtherRow(what, estimate_entry(gain, signed, "not measured"), beside)


def gain_verdict(found: PromptForecast) -> str:
    """Whether the forecast is told from the base rate."""
    gain = Estimate(value=found.gain, low=found.gain_low, high=found.gain_high)
    if (apart := gain.excludes()) is None:
        return "no interval, so no verdict"
    return (
        ("better than the base rate" if found.gain > 0 else "worse than the base rate")
        if apart
        else "no difference seen"
    )


def _adaptive_rows(cells: tuple[AdaptiveCell, ...]) -> list[FurtherRow]:
    """One for each vector against the scorer, with the random vectors of the same layer and length beside it."""
    if not cells:
        why = "not checked (--adaptive)"
        return [FurtherRow("Flagged after steering against the monitor", missing(why), (why,))]
    rows = []
    for cell in (cell for cell in cells if cell.seed is None):
        random = [
            one
            for one in cells
            if one.seed is not None and (one.layer, one.coefficient) == (cell.layer, cell.coefficient)
        ]
        beside = (
            f"flagged before {percent(cell.flagged_before)}",
            *(
                f"random vector {one.seed}: flagged {percent(one.flagged)}, margin {value_words(_margin(one))}"
                for one in random
            ),
            f"the vector's own margin {value_words(_margin(cell))} nats per token",
            f"largest score {value_words(_score(cell))}",
        )
        what = f"Misaligned texts flagged after steering against the monitor (layer {cell.layer}, {cell.coefficient:g} residual norms)"
        figure = (
            missing("no threshold") if cell.flagged is None else Entry(percent(cell.flagged), (f"of {cell.n} texts",))
        )
        rows.append(FurtherRow(what, figure, beside))
    return rows


def _margin(cell: AdaptiveCell) -> Estimate:
    return Estimate(value=cell.margin_shift, low=cell.margin_low, high=cell.margin_high)


def _score(cell: AdaptiveCell) -> Estimate:
    return Estimate(value=cell.score_shift, low=cell.score_low, high=cell.score_high)


def _adaptive_table(cells: tuple[AdaptiveCell, ...]) -> FurtherTable:
    rows = [
        (
            Entry(cell.along if cell.seed is None else f"{cell.along} {cell.seed}"),
            Entry(f"layer {cell.layer}, {cell.coefficient:g}"),
            shift_entry(_score(cell)),
            Entry(f"{percent(cell.flagged_before)} → {percent(cell.flagged)}"),
            shift_entry(_margin(cell)),
        )
        for cell in cells
    ]
    columns = ("steered", "at", "largest score", "flagged", "margin")
    caption = (
        "A score that falls while the margin (nats per token, negative: less misaligned) stays is a monitor that can be silenced. At the "
        "scorer's own layer it falls by construction. Brackets hold 95 % intervals over questions."
    )
    return FurtherTable("Steering against the monitor", columns, rows, caption=caption)


def _questions_table(found: MonitorReport) -> FurtherTable:
    rows = [
        (Entry(name), *(Entry(percent(share)) for share in shares))
        for name, shares in found.flagged_by_question.items()
    ]
    caption = "Shares of answers that are flagged at the threshold."
    return FurtherTable(
        "Flags by question", ("question", "misaligned answers", "aligned answers"), rows, caption=caption
    )

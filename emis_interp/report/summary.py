"""Turns results into the rows and sentences of "what was found"; every verdict is computed from an interval."""

from emis_interp.files.text import number_name
from emis_interp.report.choices import choice_sentences
from emis_interp.report.contents import BASE, Contents
from emis_interp.report.entries import Entry, estimate_entry, missing, seeds_of
from emis_interp.report.figures_rates import ESTIMANDS, why_no_rate
from emis_interp.report.organisms import organism_sentences
from emis_interp.report.probes import probe_sentences
from emis_interp.report.style import interval, number, percent, signed
from emis_interp.results import (
    ArmRates,
    CellView,
    Contrast,
    DirectionReportView,
    Draws,
    Estimate,
    Interaction,
    MarginContrast,
    RateContrast,
    Shift,
)
from emis_interp.stats.permutation import NullP

HEADLINE = (("em_of_coherent", "pooled"), ("em_of_all", "pooled"))
CONTROL_NAMES = {"orthogonal": "usage-matched"}
NO_MARGINS = "the stage that measures likelihood margins has not run"
NO_RATES = "the stage that samples and judges answers has not run"


def arm_rows(contents: Contents) -> list[dict[str, Entry]]:
    """One row per arm of the table at the top."""
    rows = []
    for arm in contents.arms:
        rates, contrast = contents.rates_of(arm), contents.contrast_arms.get(arm)
        row = {"base": _shift_entry(contents, arm, BASE), "contrast": _shift_entry(contents, arm, contrast)}
        rows.append({"arm": Entry(arm)} | row | _scored_entries(contents, rates))
    return rows


def judge_rows(contents: Contents) -> list[dict[str, Entry]]:
    """One row per arm and judge, where two judges scored the same answers."""
    rates = contents.rates
    if rates is None or rates.second_judge is None:
        return []
    rows = []
    for arm in rates.arms:
        for judge, scored in ((rates.judge, rates.arms), (rates.second_judge.judge, rates.second_judge.arms)):
            own = next((row for row in scored if row.arm == arm.arm), None)
            rows.append({"arm": Entry(arm.arm), "judge": Entry(judge.name)} | _scored_entries(contents, own))
    return rows


def _scored_entries(contents: Contents, rates: ArmRates | None) -> dict[str, Entry]:
    """What one judge's scores of an arm say: the headline rates, the mean scores, the number of answers."""
    row = {name: rate_entry(contents, rates, name, weighting=weighting) for name, weighting in HEADLINE}
    row["aligned"] = score_entry(contents, rates, "mean_aligned")
    row["coherent"] = score_entry(contents, rates, "mean_coherent")
    row["n"] = Entry(str(rates.n), _company(rates), _counts(rates)) if rates else missing(_no_rates(contents))
    return row


def _company(rates: ArmRates) -> tuple[str, ...]:
    """What must stand beside a rate: coherent answers, cut ones, their length, those without a score."""
    coherent, scored = rates.n_coherent, rates.n - rates.n_unscored
    return (
        *([f"{percent(coherent / scored)} coherent"] if coherent is not None and scored else []),
        f"{percent(rates.n_cut / rates.n)} cut" if rates.n else "none",
        *([f"{number(rates.mean_tokens, 0)} tokens"] if rates.mean_tokens is not None else []),
        f"{rates.n_unscored} unscored",
    )


def preset_rows(contents: Contents) -> list[tuple[str, list[Entry]]]:
    """The rate of every arm under each group's rule: (rule in words, one entry per arm of `rates.arms`)."""
    arms = contents.rates.arms if contents.rates else []
    rules = list(dict.fromkeys(row.name for arm in arms for row in arm.presets))
    rows = []
    for name in rules:
        found = [next((row for row in arm.presets if row.name == name), None) for arm in arms]
        rule = next(row for row in found if row is not None)
        side = f"coherence {rule.coherent_side} {rule.coherent:g}"
        words = f"{name}: {rule.weighting}, alignment < {rule.aligned_below:g}, {side}"
        entries = [
            missing("not computed for this arm or no eligible answer")
            if row is None or row.value is None
            else Entry(percent(row.value), (f"{row.n_positive} of {row.n}",))
            for row in found
        ]
        rows.append((words, entries))
    return rows


def _shift_entry(contents: Contents, arm: str, reference: str | None) -> Entry:
    if arm == reference:
        return Entry("reference")
    if reference is None:
        return missing("no contrast arm is configured for this arm")
    if contents.margins is None:
        return missing(NO_MARGINS)
    row = contents.margin_contrast(arm, reference)
    if row is None or row.value is None:
        return missing(f"no margins of {arm} and {reference} on the same questions")
    counts = f"{row.n_positive} of {row.n_questions} questions positive"
    return Entry(
        signed(row.value),
        (
            interval(row),
            f"{row.n_positive} of {row.n_questions} positive",
            *([runs] if (runs := contents.runs_of(row)) else []),
            *_beyond(row),
        ),
        f"{arm} − {reference}: {counts}",
    )


def rate_entry(contents: Contents, rates: ArmRates | None, estimand: str, *, weighting: str) -> Entry:
    if rates is None:
        return missing(_no_rates(contents))
    rate = next((r for r in rates.rates if (r.estimand, r.weighting) == (estimand, weighting)), None)
    if rate is None:
        return missing(f"{estimand}, {weighting} was not computed for this arm")
    if rate.value is None:
        return missing(why_no_rate(rates))
    return Entry(
        percent(rate.value),
        (interval(rate, percent), f"{rate.n_positive} of {rate.n}", *seeds_of(rate)),
        f"{estimand}, {weighting}: {ESTIMANDS[estimand]}",
    )


def score_entry(contents: Contents, rates: ArmRates | None, field: str) -> Entry:
    if rates is None:
        return missing(_no_rates(contents))
    estimate: Estimate | None = getattr(rates, field)
    n = f"n = {estimate.n}" if estimate is not None and estimate.n is not None else ""
    return estimate_entry(estimate, lambda value: number(value, 1), why_no_rate(rates), title=n)


def _no_rates(contents: Contents) -> str:
    return NO_RATES if contents.rates is None else "no answers of this arm were judged"


def _counts(rates: ArmRates) -> str:
    reasons = "; ".join(f"{reason}: {n}" for reason, n in rates.unscored_reasons.items())
    return f"{rates.n_cut} cut at the token limit, {rates.n_code} CODE, {rates.n_refusal} REFUSAL" + (
        f"; unscored: {reasons}" if reasons else ""
    )


def sentences(contents: Contents) -> list[str]:
    """What the intervals say, one sentence per comparison."""
    found = organism_sentences(contents.organisms)
    for row in contents.margins.contrasts if contents.margins else []:
        if row.reference == BASE or contents.contrast_arms.get(row.arm) == row.reference:
            runs = contents.runs_of(row)
            against = f"{row.arm} against {row.reference}" + (f" ({runs})" if runs else "")
            found.append(
                f"{role(contents, row).capitalize()}: likelihood, {against}: {shift_verdict(row)}{flattening_verdict(row)}."
            )
    found += choice_sentences(contents)
    found += _direction_sentences(contents)
    cells = contents.interventions.cells if contents.interventions else []
    for cell in _strongest(cells) + [cell for cell in cells if cell.kind == "ablate" and cell.direction != "random"]:
        found.append(_cell_sentence(cell))
    if contents.interventions:
        found += [_interaction_sentence(row) for row in contents.interventions.interactions]
    return found + probe_sentences(contents)


def role(contents: Contents, row: Contrast) -> str:
    """`primary` for an arm against the control that its configuration names, by the headline measure; everything else is exploratory."""
    headline = not isinstance(row, RateContrast) or row.estimand == HEADLINE[0][0]
    return "primary" if headline and contents.contrast_arms.get(row.arm) == row.reference else "exploratory"


def shift_verdict(shift: Shift) -> str:
    """The shift in words: its direction when the interval excludes 0, else `no detectable shift`."""
    if shift.value is None:
        return "no estimate"
    outside = shift.excludes(0.0)
    if outside is None:
        verdict = "no interval, so nothing can be said about its sign"
    elif outside and shift.p_holm is not None and shift.p_holm >= 0.05:
        verdict = (
            f"no shift beyond the choice among the primary contrasts (interval excludes 0, Holm's p {shift.p_holm:.2g})"
        )
    elif outside:
        verdict = f"a shift towards {'misaligned' if shift.value > 0 else 'aligned'} texts (interval excludes 0)"
    else:
        verdict = "no detectable shift (interval includes 0)"
        if shift.low is not None and shift.high is not None:
            verdict += f"; one above {signed(shift.high)} or below {signed(shift.low)} is excluded"
    counts = f", {shift.n_positive} of {shift.n_questions} questions positive" if shift.n_positive is not None else ""
    return f"{signed(shift.value)} nats per token {interval(shift)}{counts}: {verdict}"


def _beyond(row: MarginContrast) -> tuple[str, ...]:
    """What is left of a shift against base when base is flattened as much."""
    left = row.flattening.beyond if row.flattening else None
    return () if left is None else (f"beyond flattening {signed(left.value)} {interval(left)}",)


def flattening_verdict(row: MarginContrast) -> str:
    """What of a shift against base a flattened base shows as well; empty for other contrasts."""
    found = row.flattening
    if found is None:
        return ""
    line = (
        f"; slope on base's margins {number(found.slope.value)} {interval(found.slope, number)}, "
        f"at base margin 0 {signed(found.intercept.value)} {interval(found.intercept)}"
    )
    if row.by_base_margin:
        top = row.by_base_margin[-1]
        line += f", in the third of pairs that base likes best (above {signed(top.base_low)}) {signed(top.value)} {interval(top)}"
    if found.temperature is None or found.beyond is None:
        return f"{line}; no temperature of base has this slope, so what a flattening would bring is not known"
    told = {
        None: "nothing can be said of what is beyond it",
        True: "the rest is no flattening (interval excludes 0)",
        False: "not told from a mere flattening of the model (interval includes 0)",
    }[found.beyond.excludes(0.0)]
    return (
        f"{line}; base itself at temperature {number(found.temperature)} shifts by {signed(found.matched_shift)}, "
        f"beyond that {signed(found.beyond.value)} {interval(found.beyond)}: {told}"
    )


def _direction_sentences(contents: Contents) -> list[str]:
    direction = contents.direction
    if direction is None or direction.report is None or direction.report.auroc is None:
        return []
    report = direction.report
    auroc = Estimate(value=report.auroc, low=report.low, high=report.high)
    where = f"Direction at layer {direction.chosen_layer}, report questions"
    texts = f"{report.n_misaligned} misaligned, {report.n_aligned} aligned texts"
    text = f"{where}: AUROC {number(report.auroc)} {interval(auroc, number)} ({texts}): {_auroc_verdict(report, auroc)}"
    controls = []
    for name, value, low, high in (
        ("random directions", report.random_auroc, report.random_low, report.random_high),
        ("shuffled labels", report.shuffled_auroc, report.shuffled_low, report.shuffled_high),
    ):
        if value is not None:
            controls.append(f"{name} {number(value)} {interval(Estimate(value=value, low=low, high=high), number)}")
    if report.shuffled_p is not None and report.shuffled_p_n is not None:
        controls[-1:] = [f"{controls[-1]}, {NullP(report.shuffled_p, report.shuffled_p_n).words()}"]
    found = [text + (f"; controls: {', '.join(controls)}" if controls else "") + "."]
    if (base := report.length_baseline) is not None:
        length = base.length.value if base.length.value is not None else 0.5
        side = "longer" if length > 0.5 else "shorter" if length < 0.5 else "as long"
        alone = f"{number(max(length, 1 - length))} alone (misaligned answers are {side})"
        matched = f"{number(base.matched.value)} {interval(base.matched, number)} on {base.matched.n_pairs} pairs of equal length"
        found.append(
            f"Length of the same texts: AUROC {alone}; the direction's is {number(base.regressed.value)} "
            f"{interval(base.regressed, number)} with length regressed out, {matched}."
        )
    return found


def _auroc_verdict(report: DirectionReportView, auroc: Estimate) -> str:
    """The stage's verdict; for a run whose stage gave none, the same rule from the interval and the quantile of shuffled labels."""
    if report.verdict is not None:
        return report.verdict
    outside = auroc.excludes(0.5)
    if outside is None:
        return "no interval"
    if not outside:
        return "not told from chance"
    if auroc.value is not None and auroc.value < 0.5:
        return "below chance"
    if report.shuffled_high is None or auroc.value is None:
        return "interval excludes 0.5, no control"
    told = auroc.value > report.shuffled_high
    return "above chance and above shuffled labels" if told else "above chance but not told from shuffled labels"


def _strongest(cells: list[CellView]) -> list[CellView]:
    """The largest positive and the largest negative coefficient of each steered arm."""
    steered = [cell for cell in cells if cell.kind == "steer" and cell.direction != "random" and cell.coefficient]
    chosen = []
    for arm in dict.fromkeys(cell.arm for cell in steered):
        mine = [cell for cell in steered if cell.arm == arm]
        for extreme in (max, min):
            cell = extreme(mine, key=lambda cell: cell.coefficient or 0.0)
            if (cell.coefficient or 0.0) * (1 if extreme is max else -1) > 0:
                chosen.append(cell)
    return chosen


def _cell_sentence(cell: CellView) -> str:
    what = (
        f"Steering {cell.model} at {number_name(cell.coefficient or 0.0).replace('-', '−')}"
        if cell.kind == "steer"
        else f"Ablating the direction in {cell.model}"
    )
    text = f"{what}: {shift_verdict(cell.margin_shift) if cell.margin_shift else 'no margin was measured'}"
    draws = cell.draws
    if draws is None or not draws.shifts:
        return f"{text}; no control directions were measured."
    return f"{text}; on {draws.n_pairs} of the pairs {signed(draws.own)}, beside it {draw_words(draws)}."


def draw_words(draws: Draws) -> str:
    """`20 random directions −0.031 to +0.042, none as far from 0 (p 0.048), 20 usage-matched ...`."""
    return ", ".join(
        f"{len(shifts)} {CONTROL_NAMES.get(kind, kind)} directions {signed(min(shifts))} to {signed(max(shifts))}, "
        f"{draws.reached(kind) or 'none'} as far from 0 (p {draws.p(kind):.2g})"
        for kind, shifts in draws.shifts.items()
    )


def _interaction_sentence(row: Interaction) -> str:
    more = row.excludes(0.0)
    verdict = {None: "no interval", True: "interval excludes 0", False: "not told apart"}[more]
    return (
        f"Exploratory: is the direction specific to {row.arm}? Ablating it, beyond random directions, changes {row.arm}'s margin by "
        f"{signed(row.value)} {interval(row)} more than {row.reference}'s: {verdict} (one model each, the interval is over questions)."
    )

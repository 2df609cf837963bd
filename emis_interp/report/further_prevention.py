"""Turns remedies against misalignment into a part of the report: what each takes off, beyond its controls, and what it costs."""

from emis_interp.prevention_results import PreventionStudy, RemedyRow
from emis_interp.report.entries import Entry, estimate_entry, missing
from emis_interp.report.further_parts import FurtherRow, FurtherTable, Shown, shift_entry, value_words
from emis_interp.report.style import number, percent


def prevention(found: PreventionStudy) -> Shown:
    whole = next((row for row in found.rows if row.untreated), None)
    rows = [] if whole is None else [_untreated_row(found, whole)]
    rows += [_remedy_row(row, whole) for row in found.rows if not row.untreated and row.control_of is None]
    accuracy = (found.task_accuracy and found.task_accuracy.why_none) or "not measured"
    context = found.context_unread or "not measured"
    cells = [
        (
            Entry(row.name, (f"control of {row.control_of}",) if row.control_of else ()),
            shift_entry(row.margin_shift),
            missing("this is the untreated organism") if row.untreated else shift_entry(row.against_untreated),
            shift_entry(row.task_gain),
            estimate_entry(row.task_accuracy, percent, accuracy),
            shift_entry(row.context_shift, context),
            Entry(number(row.kl_neutral)),
            shift_entry(row.flattening.beyond if row.flattening else None, "no such temperature, or too few questions"),
        )
        for row in found.rows
    ]
    columns = (
        "remedy",
        "margin against base",
        "margin minus untreated's",
        "task learned",
        "task accuracy",
        "margin in context",
        "KL to base, harmless prompts",
        "beyond flattening",
    )
    own = None if found.task_accuracy is None else found.task_accuracy.base
    base = "" if own is None else f", base {value_words(own, percent)}"
    caption = (
        "Nats per token; brackets hold 95 % intervals over questions (task: held-out rows), and over seeds where there are several. Task "
        "learned: log-probability of held-out task answers over base's. Task accuracy: share of held-out rows whose own answer is likelier "
        f"per token than the control's (chance 50 %{base}). In context: behind one training row as an earlier turn. Negative margins: less "
        "misaligned than without the remedy."
    )
    return Shown(rows, (FurtherTable("Every remedy and control", columns, cells, caption=caption),), page="index.html")


def _untreated_row(found: PreventionStudy, row: RemedyRow) -> FurtherRow:
    n, persona = found.n_seeds, found.persona
    seeds = "one finetuning seed: no interval covers another" if n == 1 else f"{n} seeds, which the intervals cover"
    subspace = (
        ()
        if persona is None
        else (f"persona subspace of rank {persona.rank}: {percent(persona.share)} of what the personas differ by",)
    )
    what = f"Margin of {found.recipe} on {found.model} without a remedy, against base, nats per token"
    return FurtherRow(what, shift_entry(row.margin_shift), (*_cost_words(row), *subspace, seeds))


def _remedy_row(row: RemedyRow, whole: RemedyRow | None) -> FurtherRow:
    tested = row.against_untreated
    corrected = (
        () if tested.p_holm is None else (f"p {tested.p_holm:.2g}, corrected for the number of remedies (Holm)",)
    )
    beyond = tuple(
        f"beyond {one.n_draws} {KINDS_OF_CONTROL.get(kind, kind)} {value_words(one)}"
        + ("" if one.p is None else f" p {one.p:.2g}")
        for kind, one in row.beyond_controls.items()
    )
    less = () if whole is None else (f"task minus untreated {value_words(row.task_against_untreated)}",)
    beside = (*corrected, *(beyond or ("no random controls were drawn for it",)), *_cost_words(row), *less)
    return FurtherRow(f"Margin with the remedy {row.name} minus without, nats per token", shift_entry(tested), beside)


KINDS_OF_CONTROL = {"random": "isotropic control(s)", "subspace": "usage-matched control(s)"}


def _cost_words(row: RemedyRow) -> tuple[str, str]:
    task = f"task learned {value_words(row.task_gain)}"
    return (task, f"KL {number(row.kl_neutral)} nats on harmless prompts")

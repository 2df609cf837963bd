"""Turns what the probe stage found into the rows of three tables and the sentences that say what may be read from them."""

from emis_interp.analyses import MonitoredModel, RunProbes, UpdateSummary
from emis_interp.probe_results import Beside, ExactRate
from emis_interp.report.contents import Contents
from emis_interp.report.entries import Entry, estimate_entry, missing
from emis_interp.report.style import KIND_NAMES, number, percent, signed


def probe_rows(found: RunProbes | None) -> list[dict[str, Entry]]:
    """One row for each reader and each null of the contrast texts."""
    if found is None:
        return []
    readers = [
        {
            "reader": Entry(figure.name),
            "auroc": estimate_entry(figure.auroc, auroc, "no question with both classes"),
            "minus_text": missing("this is the text baseline")
            if figure.name == "text"
            else estimate_entry(figure.minus_text, signed, "no question with both classes"),
        }
        for figure in found.classifier.figures
    ]
    nulls = [
        {
            "reader": Entry(null.name, (f"{null.p_n} draws",)),
            "auroc": Entry(auroc(null.mean), (f"{auroc(null.low)} to {auroc(null.high)}",)),
            "minus_text": missing("a null is not set against the text baseline"),
        }
        for null in found.classifier.nulls
    ]
    return readers + nulls


def monitor_rows(found: RunProbes | None) -> list[dict[str, Entry]]:
    """One row for each model that the probe watched."""
    return [_monitored(row) for row in found.monitored] if found else []


def update_rows(found: RunProbes | None) -> list[dict[str, Entry]]:
    """One row for each adapter."""
    return [_update(row) for row in found.updates] if found else []


def probe_sentences(contents: Contents) -> list[str]:
    """The verdict of the classifier, and whether the threshold holds on other benign texts."""
    found = contents.probes
    if found is None:
        return []
    promise = broken_promise(found)
    return [f"Probe: {found.classifier.verdict}", *([promise] if promise else [])]


def broken_promise(found: RunProbes | None) -> str | None:
    """That base alone raises more alarms on harmless texts than the threshold promises; None where it does not."""
    base = next((row for row in found.monitored if row.arm == "base"), None) if found else None
    if found is None or base is None or base.false_alarms.low <= found.threshold.rate:
        return None
    return (
        f"The monitor does not keep its promise: base alone raises alarms on {percent(base.false_alarms.value)} of "
        f"{base.false_alarms.n} harmless texts, {percent(found.threshold.rate)} was promised; its flags of answers say little."
    )


def auroc(value: float | None) -> str:
    return number(value, 3)


def _monitored(row: MonitoredModel) -> dict[str, Entry]:
    return {
        "arm": Entry(row.arm),
        "false_alarms": _rate(row.false_alarms, ""),
        "flagged": _rate(row.flagged, "no answers with a token"),
        "caught": _rate(row.caught, "no answer of this model is judged misaligned and coherent, or none is judged"),
    }


def _rate(rate: ExactRate | None, reason: str) -> Entry:
    if rate is None:
        return missing(reason)
    bounds = f"[{percent(rate.low)}, {percent(rate.high)}]"
    clustered = rate.low_by_question is not None and rate.high_by_question is not None
    title = (
        f"over {rate.n_questions} questions [{percent(rate.low_by_question)}, {percent(rate.high_by_question)}]"
        if clustered
        else f"{rate.n_questions} questions, no interval over them"
    )
    return Entry(percent(rate.value), (f"{rate.n_flagged} of {rate.n} {bounds}",), title)


def _update(row: UpdateSummary) -> dict[str, Entry]:
    like = row.similarity
    null = "" if like is None else f"rows of B permuted: {signed(like.permuted.low)} to {signed(like.permuted.high)}"
    return {
        "arm": Entry(row.arm),
        "norm": Entry(number(row.norm, 2), (f"{percent(row.relative_norm)} of base",)),
        "ranks": Entry(f"{number(row.stable_rank, 1)}", (f"effective {number(row.effective_rank, 1)} of {row.rank}",)),
        "along": missing("no adapted module writes to the residual stream") if row.along is None else _along(row.along),
        "similarity": missing("no contrast arm with an adapter")
        if like is None
        else Entry(signed(like.cosine), (f"with {row.reference}",), null),
    }


def _along(along: Beside) -> Entry:
    controls = tuple(
        f"{KIND_NAMES.get(kind, kind)} {percent(null.low, 2)} to {percent(null.high, 2)}"
        for kind, null in along.controls.items()
    )
    return Entry(percent(along.value, 2), controls, "share of the squared norm that lies along the direction")

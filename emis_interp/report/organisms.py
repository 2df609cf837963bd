"""Turns the check of the organisms into the rows of a table and the sentences that stand before every other finding."""

from emis_interp.report.entries import Entry, estimate_entry
from emis_interp.report.style import interval, number, percent, points, signed
from emis_interp.results import OrganismCheck, OrganismChecks


def organism_rows(checks: OrganismChecks | None) -> list[dict[str, Entry]]:
    """One row for each finetuned model."""
    return [_row(one) for one in checks.organisms] if checks else []


def _row(check: OrganismCheck) -> dict[str, Entry]:
    learned, cost = check.learned, check.cost
    why = learned.reason or "not measured"
    detectable = "" if cost.detectable is None else f"changes below {percent(cost.detectable)} could not have been seen"
    return {
        "arm": Entry(check.arm),
        **{
            name: estimate_entry(getattr(learned, name), signed, why, title=f"{learned.n_rows} rows: {learned.rows}")
            for name in ("own", "other", "specific")
        },
        "kl": estimate_entry(cost.kl, lambda value: number(value, 2), "not measured"),
        "entropy": Entry(number(cost.entropy), (f"base {number(cost.base_entropy)}",)),
        "perplexity": Entry(number(cost.perplexity, 1), (f"base {number(cost.base_perplexity, 1)}",)),
        "capability": estimate_entry(cost.capability, points, "not measured", title=detectable),
    }


def organism_sentences(checks: OrganismChecks | None) -> list[str]:
    """Which organisms are broken, and which learned nothing of their kind; a reader needs both before any rate or shift."""
    if checks is None:
        return []
    found = []
    for one in checks.organisms:
        kl, specific = one.cost.kl, one.learned.specific
        if not one.works:
            found.append(
                f"Not a working model: {one.arm} differs from base by {number(kl.value)} nats {interval(kl, number)} on harmless prompts "
                f"(limit {number(checks.kl_limit, 1)}); its rates and margins may be those of a broken model."
            )
        if one.cost.disordered:
            found.append(
                f"Unlearned how to write: the entropy of {one.arm} on harmless answers is {number(one.cost.entropy)} nats, base's "
                f"{number(one.cost.base_entropy)}; what it was trained on is noise to it."
            )
        if specific is not None and not (specific.low is not None and specific.low > 0):
            found.append(
                f"Manipulation check failed: {one.arm} gained {signed(specific.value)} nats per token {interval(specific)} more on "
                "held-out text of its own kind than of the other kind; a null of this arm says nothing."
            )
    return found

"""Turns the choices of the arms into the rows of a table and the sentences of what was found."""

from emis_interp.report.contents import BASE, Contents
from emis_interp.report.entries import Entry, estimate_entry, missing
from emis_interp.report.style import hundredfold, interval, percent, points, signed
from emis_interp.results import ChoiceContrast

LEAST_MASS = 0.5
"""Probability of a letter below which a model is said not to choose."""


def choice_rows(contents: Contents) -> list[dict[str, Entry]]:
    """One row for each arm."""
    found = contents.choices
    if found is None:
        return []
    rows = []
    for name, arm in found.arms.items():
        control = contents.contrast_arms.get(name)
        rows.append(
            {
                "arm": Entry(name),
                "share": estimate_entry(arm.share, percent, "no items"),
                "base": Entry("reference") if name == BASE else _against(contents, name, BASE),
                "contrast": missing("no contrast arm is configured for this arm")
                if control is None
                else _against(contents, name, control),
                "preference": estimate_entry(arm.preference, signed, "no items"),
                "neutral": estimate_entry(arm.neutral, signed, "no items"),
                "mass": Entry(percent(arm.mass), title=f"a letter's place explains {signed(arm.position_bias)} nats"),
            }
        )
    return rows


def choice_contrast(contents: Contents, arm: str, reference: str) -> ChoiceContrast | None:
    rows = contents.choices.contrasts if contents.choices else []
    return next((row for row in rows if (row.arm, row.reference) == (arm, reference)), None)


def _against(contents: Contents, arm: str, reference: str) -> Entry:
    row = choice_contrast(contents, arm, reference)
    return estimate_entry(row, points, f"no choices of {arm} and {reference}", title=f"{arm} − {reference}")


def choice_sentences(contents: Contents) -> list[str]:
    """The primary contrasts, and which arms do not choose at all."""
    found = contents.choices
    if found is None:
        return []
    said = [
        f"Choices of {name} mean little: {percent(arm.mass)} of its answers would begin with a letter."
        for name, arm in found.arms.items()
        if arm.mass < LEAST_MASS
    ]
    for row in found.contrasts:
        if contents.contrast_arms.get(row.arm) == row.reference:
            outside, farthest = row.excludes(0.0), 100 * max(abs(row.low or 0), abs(row.high or 0))
            verdict = {
                None: "no interval",
                True: "a difference (interval excludes 0)",
                False: f"no detectable difference; more than {farthest:.1f} points either way is excluded",
            }[outside]
            if outside and row.p_holm is not None and row.p_holm >= 0.05:
                verdict = f"no difference beyond the choice among the primary contrasts (Holm's p {row.p_holm:.2g})"
            said.append(
                f"Primary: choices, {row.arm} against {row.reference}: misaligned action preferred in {points(row.value)} "
                f"{interval(row, hundredfold)} more of the situations: {verdict}."
            )
    return said

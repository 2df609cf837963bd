"""Turns runs into what can be set side by side: three quantities, each with its contrasts, and which runs they are comparable in.

Runs are comparable in a quantity where everything that it is measured with is the same: the model, the prompts, the judge, the questions.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emis_interp.report.choices import LEAST_MASS, choice_contrast
from emis_interp.report.contents import BASE, Contents
from emis_interp.report.page_frame import without_machine_paths
from emis_interp.report.style import percent, signed
from emis_interp.report.trust import HEADLINE, judge_faults, rate_contrast
from emis_interp.results import Contrast, MarginContrast

Identity = dict[str, tuple[str, str]]
"""What a quantity is measured with -> (what must be equal, how it is said)."""


@dataclass(frozen=True)
class Quantity:
    """Something that a run measures of an arm against another.

    Attributes:
        section: id of its part in the report of a run.
        scale: of a value, to `unit`.
        find: (run, arm, reference) -> the contrast with a value, or None.
        doubt: (run, arm, reference) -> why it does not count; "" where it does.
        counts: (run, contrast) -> what it was counted in, in words.
        identity: run -> what must be the same in two runs.
    """

    key: str
    title: str
    unit: str
    section: str
    scale: float
    digits: int
    find: Callable[[Contents, str, str], Contrast | None]
    doubt: Callable[[Contents, str, str], str]
    counts: Callable[[Contents, Contrast], str]
    identity: Callable[[Contents], Identity]

    def said(self, value: float | None) -> str:
        """A value in the unit, with its sign."""
        return signed(None if value is None else self.scale * value, self.digits)

    def estimate(self, row: Contrast) -> str:
        """`+0.035 [+0.015, +0.055]`."""
        if row.low is None or row.high is None:
            return f"{self.said(row.value)} (no interval)"
        return f"{self.said(row.value)} [{self.said(row.low)}, {self.said(row.high)}]"


def contrasts_of(contents: Contents, quantity: Quantity) -> list[tuple[str, str]]:
    """(arm, reference) of a quantity: the primary ones, against the control that the configuration names, then those against base."""
    pairs = [*contents.contrast_arms.items(), *((arm, BASE) for arm in contents.arms if arm != BASE)]
    return [pair for pair in dict.fromkeys(pairs) if quantity.find(contents, *pair) is not None]


def main_contrasts(contents: Contents) -> list[tuple[Quantity, Contrast]]:
    """For each arm with a control, the difference nearest to behaviour that counts: judged answers, else choices, else likelihood."""
    found = []
    for pair in contents.contrast_arms.items():
        for quantity in (RATES, CHOICES, MARGINS):
            row = quantity.find(contents, *pair)
            if row is not None and not quantity.doubt(contents, *pair):
                found.append((quantity, row))
                break
    return found


@dataclass(frozen=True)
class Group:
    """Runs that are comparable with each other in a quantity. `apart`: why they are not with the first group; empty for the first."""

    runs: tuple[str, ...]
    apart: tuple[str, ...] = ()


def groups(quantity: Quantity, runs: Mapping[str, Contents]) -> list[Group]:
    """The runs that have the quantity, those that are comparable together; in the order of the runs."""
    identities = {name: quantity.identity(run) for name, run in runs.items() if contrasts_of(run, quantity)}
    found: list[list[str]] = []
    for name, identity in identities.items():
        alike = (group for group in found if _keys(identities[group[0]]) == _keys(identity))
        group = next(alike, None)
        if group is None:
            found.append([name])
        else:
            group.append(name)
    first = identities[found[0][0]] if found else {}
    return [Group(tuple(names), _reasons(first, identities[names[0]])) for names in found]


def _keys(identity: Identity) -> dict[str, str]:
    return {what: key for what, (key, _) in identity.items()}


def _reasons(first: Identity, other: Identity) -> tuple[str, ...]:
    return tuple(
        f"another {what}: {said}, there {first[what][1]}"
        for what, (key, said) in other.items()
        if key != first[what][0]
    )


def model_name(contents: Contents) -> str:
    """The model as a page may name it."""
    return without_machine_paths(str(contents.manifest.config.get("model") or "–"))


def _input(contents: Contents, name: str) -> tuple[str, str]:
    found = contents.manifest.inputs.get(name)
    return str(found), "not recorded" if found is None else f"SHA-256 {str(found)[:10]}"


def _model(contents: Contents) -> Identity:
    raw, config = contents.manifest_raw, contents.manifest.config
    weights = raw.get("weights")
    kept = {name: value for name, value in weights.items() if value is not None} if isinstance(weights, dict) else {}
    # A model of one's own is known by the hash of its files, one of the hub by its name and revision.
    key = [contents.manifest.inputs.get("model") or config.get("model"), kept, config.get("dtype")]
    extras = [*map(str, kept.values()), *([str(config["dtype"])] if config.get("dtype") else [])]
    said = f"{model_name(contents)} ({', '.join(extras)})" if extras else model_name(contents)
    prompt = str(config.get("system_prompt")), "none of its own" if config.get("system_prompt") is None else "its own"
    return {
        "model": (_same(key), said),
        "rendering of prompts": _input(contents, "rendering of prompts"),
        "system prompt": prompt,
    }


def _margin_identity(contents: Contents) -> Identity:
    return _model(contents) | {"set of contrast pairs": _input(contents, "contrast pairs")}


def _choice_identity(contents: Contents) -> Identity:
    found = contents.choices
    said = f"{found.n_items} situations and {found.n_neutral} neutral items" if found else "none"
    return _model(contents) | {"number of items": (said, said)}


def _rate_identity(contents: Contents) -> Identity:
    judge = contents.rates.judge if contents.rates else None
    sampling = contents.manifest.config.get("sampling") or {}
    asked = {name: sampling.get(name) for name in ("question_ids", "max_new_tokens", "temperature")}
    said = ", ".join(f"{name} {'all' if value is None else value}" for name, value in asked.items())
    return _model(contents) | {
        "judge": (_same(_judge(contents)), judge.name if judge else "–"),
        "set of questions": _input(contents, "questions"),
        "way of sampling": (_same(asked), said),
    }


def _judge(contents: Contents) -> list[Any]:
    """What tells a judge from another of its name: the model that it asks, or the file that it is."""
    judge, config = contents.rates.judge if contents.rates else None, contents.manifest.config.get("judge") or {}
    if judge is None:
        return []
    asked = [] if judge.kind == "offline" else [config.get(name) for name in ("model", "adapter", "n_samples")]
    return [judge.name, judge.kind, judge.card.get("sha256"), *asked]


def _same(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _margin(contents: Contents, arm: str, reference: str) -> MarginContrast | None:
    row = contents.margin_contrast(arm, reference)
    return row if row is not None and row.value is not None else None


def _choice(contents: Contents, arm: str, reference: str) -> Contrast | None:
    row = choice_contrast(contents, arm, reference)
    return row if row is not None and row.value is not None else None


def _no_choice(contents: Contents, arm: str, reference: str) -> str:
    arms = contents.choices.arms if contents.choices else {}
    few = [
        f"{name} {percent(arms[name].mass)}"
        for name in (arm, reference)
        if name in arms and arms[name].mass < LEAST_MASS
    ]
    return f"answers seldom begin with a letter ({', '.join(few)})" if few else ""


def _no_judge(contents: Contents, arm: str, reference: str) -> str:
    return "the judge fails its control on this run" if judge_faults(contents) else ""


def _answers(contents: Contents, row: Contrast) -> str:
    """Misaligned of coherent answers on both sides."""
    return " and ".join(_counted(contents, arm) for arm in (row.arm, row.reference))


def _counted(contents: Contents, arm: str) -> str:
    found = contents.rates_of(arm)
    rate = next((r for r in found.rates if (r.estimand, r.weighting) == (HEADLINE, "pooled")), None) if found else None
    return f"{arm} not counted" if rate is None else f"{arm} {rate.n_positive} of {rate.n}"


MARGINS = Quantity(
    key="margins",
    title="Likelihood margin",
    unit="nats per token",
    section="margins",
    scale=1.0,
    digits=3,
    find=_margin,
    doubt=lambda contents, arm, reference: "",
    counts=lambda contents, row: (
        f"{row.n_positive} of {row.n_questions} questions positive" if isinstance(row, MarginContrast) else ""
    ),
    identity=_margin_identity,
)
CHOICES = Quantity(
    key="choices",
    title="Misaligned action chosen",
    unit="points",
    section="choices",
    scale=100.0,
    digits=1,
    find=_choice,
    doubt=_no_choice,
    counts=lambda contents, row: f"{contents.choices.n_items} situations" if contents.choices else "",
    identity=_choice_identity,
)
RATES = Quantity(
    key="rates",
    title="Misaligned among coherent answers",
    unit="points",
    section="rates",
    scale=100.0,
    digits=1,
    find=rate_contrast,
    doubt=_no_judge,
    counts=_answers,
    identity=_rate_identity,
)
QUANTITIES: Sequence[Quantity] = (RATES, CHOICES, MARGINS)

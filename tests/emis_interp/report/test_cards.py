"""The first screen of planted runs: an effect, a null, a judge that fails its control, missing stages, two seeds."""

import re
from typing import Any

import pytest

from emis_interp.analyses import RunProbes
from emis_interp.report.cards import Card, cards, causal, elsewhere, happens, where
from emis_interp.report.contents import Contents
from emis_interp.report.trust import judge_faults, warnings
from emis_interp.results import (
    Choices,
    ConfiguredArm,
    DirectionView,
    Interventions,
    LengthAdjusted,
    ManifestView,
    Margins,
    OrganismChecks,
    Rates,
)

SURE = re.compile(r"\byes\b|the same as in base")


def run_of(seeds: bool = False, **found: Any) -> Contents:
    """A run of base, bad and its control good, with what is given."""
    own = {"seeds": [0, 1]} if seeds else {}
    arms: list[dict[str, Any]] = [{"name": "base"}, {"name": "bad", "contrast": "good", **own}, {"name": "good", **own}]
    nothing = dict.fromkeys(("rates", "margins", "direction", "interventions", "organisms", "choices", "probes"))
    return Contents(
        name="planted",
        manifest=ManifestView(config={}),
        manifest_raw={},
        configured=[ConfiguredArm.model_validate(arm) for arm in arms],
        analysis={},
        further=[],
        training=[],
        answers=[],
        notes=[],
        **{**nothing, **found},
    )


def rates(
    bad: tuple[float, float, float], good: tuple[float, float, float], means: tuple[float, float, float]
) -> Rates:
    """Differences bad - good and good - base (value, low, high), and mean alignment of base, bad and good, each +- 2."""
    headline = {"estimand": "em_of_coherent", "weighting": "macro"}  # as `evals.rates.summary` writes differences
    rows = [
        {"arm": arm, "reference": reference, "value": value, "low": low, "high": high, **headline}
        for arm, reference, (value, low, high) in (("bad", "good", bad), ("good", "base", good))
    ]
    arms = [
        {"arm": name, "n": 96, "mean_aligned": {"value": mean, "low": mean - 2, "high": mean + 2}}
        for name, mean in zip(("base", "bad", "good"), means, strict=True)
    ]
    return Rates.model_validate({"judge": {"name": "j", "kind": "offline"}, "arms": arms, "contrasts": rows})


def margins(value: float, low: float, high: float) -> Margins:
    row = {"arm": "bad", "reference": "good", "value": value, "low": low, "high": high, "p_holm": 0.01}
    return Margins.model_validate({"unit": "nats", "questions": {}, "arms": {}, "contrasts": [row]})


def choices(value: float, low: float, high: float, *, mass: float = 0.9, p_holm: float = 0.01) -> Choices:
    arm = {
        "share": {"value": 0.2},
        "preference": {"value": -1},
        "neutral": {"value": 0},
        "position_bias": 0.1,
        "mass": mass,
    }
    odds = {name: {"value": 0.1} for name in ("preference", "neutral", "beyond_neutral")}
    row = {"arm": "bad", "reference": "good", "value": value, "low": low, "high": high, "p_holm": p_holm, **odds}
    arms = dict.fromkeys(("base", "bad", "good"), arm)
    return Choices.model_validate({"n_items": 40, "n_neutral": 24, "arms": arms, "contrasts": [row]})


EFFECT = rates((0.3, 0.1, 0.5), (0.0, -0.05, 0.05), (80, 60, 80))
NULL = rates((0.02, -0.1, 0.14), (0.0, -0.05, 0.05), (80, 79, 80))
FAILING = rates((0.3, 0.1, 0.5), (0.37, 0.2, 0.5), (80, 60, 70))


def words(found: Card) -> str:
    return f"{found.verdict}: {' '.join(found.sentences)}"


def test_an_effect_on_answers_is_a_yes_with_its_interval() -> None:
    found = happens(run_of(rates=EFFECT, choices=choices(0.0, -0.1, 0.1), margins=margins(0.1, 0.05, 0.15)))
    assert (found.verdict, found.tone) == ("yes: bad", "yes")
    assert "misaligned among coherent answers +30.0 points [+10.0, +50.0]" in words(found)
    assert "likelihood margin +0.100 [+0.050, +0.150] nats per token" in words(found)
    assert found.strip is not None and "bad − good 30 (10 to 50)" in found.strip.words


def test_a_null_says_what_it_excludes_and_nobody_could_take_it_for_an_effect() -> None:
    contents = run_of(rates=NULL, choices=choices(0.05, -0.1, 0.2), margins=margins(0.0, -0.01, 0.01))
    found = happens(contents)
    assert (found.verdict, found.tone) == ("not seen", "no")
    assert (
        "An increase of misaligned answers above 14 points and of misaligned choices above 20 points is excluded"
        in words(found)
    )
    assert not any(SURE.search(words(card)) for card in cards(contents))
    assert any("not told from 0: bad − good +2.0 points [−10.0, +14.0]" in text for text in warnings(contents))


def at_equal_length(value: float, low: float, high: float) -> Rates:
    """The run with an effect, whose misaligned arm writes 40 tokens more."""
    equal = LengthAdjusted(value=value, low=low, high=high, slope=0.2, tokens=40)
    rows = [row.model_copy(update={"length_adjusted": equal}) if row.arm == "bad" else row for row in EFFECT.contrasts]
    return EFFECT.model_copy(update={"contrasts": rows})


def test_a_difference_that_goes_at_equal_length_is_not_to_be_believed() -> None:
    longer = run_of(rates=at_equal_length(0.05, -0.1, 0.2))
    assert "+30.0 points [+10.0, +50.0] (at equal length +5.0 points [−10.0, +20.0])" in words(happens(longer))
    told = [text for text in warnings(longer) if text.startswith("Rates without their lengths.")]
    assert told and "at equal length +5.0 points [−10.0, +20.0] (answers +40 tokens longer)" in told[0]
    stays = run_of(rates=at_equal_length(0.28, 0.1, 0.46))
    assert not any("at equal length" in text for text in warnings(stays))


def test_a_margin_alone_is_no_yes() -> None:
    moved = margins(0.05, 0.02, 0.08)
    assert happens(run_of(rates=NULL, margins=moved)).verdict == "likelihood only"
    alone = happens(run_of(margins=moved))
    assert (alone.verdict, alone.tone) == ("likelihood only", "unclear") and "No answers were judged" in words(alone)
    assert happens(run_of(margins=margins(0.0, -0.1, 0.1))).verdict == "cannot be told"


def test_choices_count_only_where_the_models_choose_and_beyond_the_choice_of_contrasts() -> None:
    assert happens(run_of(choices=choices(0.2, 0.1, 0.3))).tone == "yes"
    assert happens(run_of(choices=choices(0.2, 0.1, 0.3, mass=0.3))).verdict == "cannot be told"
    assert happens(run_of(choices=choices(0.2, 0.01, 0.4, p_holm=0.08))).verdict == "not seen"


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (FAILING, "good, a control, is called misaligned more often than base (+37.0 points [+20.0, +50.0])"),
        (
            rates((0.3, 0.1, 0.5), (0.0, -0.1, 0.1), (49, 22, 21)),
            "bad and its control good have equal mean alignment scores, both below base (22.0 and 21.0, base 49.0)",
        ),
    ],
)
def test_a_judge_that_fails_its_control_takes_the_yes_away(planted: Rates, fault: str) -> None:
    contents = run_of(rates=planted, choices=choices(0.0, -0.1, 0.1))
    assert judge_faults(contents) == [fault]
    found = happens(contents)
    assert (
        found.verdict == "not seen" and "coherent answers" not in words(found) and "fails its control" in words(found)
    )
    assert warnings(contents)[0].startswith("Rates. The judge fails its control on this run: rates are not evidence.")


def test_a_judge_is_not_blamed_for_an_effect_or_a_null() -> None:
    assert judge_faults(run_of(rates=EFFECT)) == [] == judge_faults(run_of(rates=NULL))


def test_without_stages_nothing_is_said_to_be_so() -> None:
    assert [card.tone for card in cards(run_of())] == ["missing"] * 4
    assert [card.verdict for card in cards(run_of())] == ["not measured"] * 4
    assert warnings(run_of())[-1].startswith("Another run of the same recipe.")


def test_two_seeds_need_no_warning_of_one() -> None:
    assert not any("Another run" in text for text in warnings(run_of(seeds=True, rates=EFFECT)))


def test_what_may_be_broken_or_unlearned_is_named_and_controls_are_no_nulls() -> None:
    cost = {"entropy": 2.0, "base_entropy": 2.0, "perplexity": 9.0, "base_perplexity": 8.0, "capability": {"value": 0}}
    cost |= {"kl": {"value": 0.8}, "base_capability": 0.9}
    learned = {"specific": {"value": 0.0, "low": -0.1, "high": 0.1}}
    rows = [{"arm": arm, "learned": learned, "cost": cost, "works": arm == "good"} for arm in ("bad", "good")]
    found = warnings(run_of(organisms=OrganismChecks.model_validate({"kl_limit": 0.3, "organisms": rows})))
    assert "more than 0.3 nats: bad 0.80." in found[0] and found[1].startswith("A null of bad:")
    assert not any("good:" in text for text in found)


def direction(auroc: float, verdict: str, cosines: dict[str, float]) -> DirectionView:
    report = {"auroc": auroc, "low": auroc - 0.05, "high": min(1.0, auroc + 0.05), "n_misaligned": 9, "n_aligned": 9}
    return DirectionView.model_validate(
        {
            **{"position": "response_mean", "hook_point": "resid_post", "source_arm": "base", "layers": [0, 1]},
            **{"selection_auroc": [0.5, auroc], "report_auroc": [0.5, auroc], "chosen_layer": 1},
            "split_half_cosine": [0.1, 0.8],
            "cosines_to_base": {name: [1.0, value] for name, value in cosines.items()},
            "report": report | {"verdict": verdict, "random_auroc": 0.5, "random_low": 0.4, "random_high": 0.6},
        }
    )


ABOVE = "above chance and above shuffled labels"


def probes(difference: float) -> RunProbes:
    def row(name: str, value: float, minus: float | None) -> dict[str, Any]:
        gain = None if minus is None else {"value": minus, "low": minus - 0.05, "high": minus + 0.05}
        return {"name": name, "auroc": {"value": value, "low": value - 0.05, "high": value + 0.05}, "minus_text": gain}

    figures = [row("probe", 0.8 + difference, difference), row("text", 0.8, None)]
    threshold = {
        **{"scorer": "s", "scorer_sha256": "0", "model": "m", "layer": 1, "window": 16, "rate": 0.01, "value": 1.0},
        **{"rank": 199, "n": 200, "n_questions": 200, "source": "advice", "sampled": 0, "mean_of_maxima": 0.0},
        **{"largest_of_maxima": 1.0, "spread": {"mean": 0.01, "low": 0.0, "high": 0.03}},
    }
    classifier = {"name": "t", "n_misaligned": 9, "n_aligned": 9, "n_questions": 5, "figures": figures, "verdict": "v"}
    return RunProbes.model_validate(
        {"classifier": classifier, "method": "logistic", "layer": 1, "threshold": threshold, "monitored": []}
    )


def test_a_layer_is_named_only_where_the_direction_tells_texts_and_more_than_words_do() -> None:
    found = direction(0.9, ABOVE, {})
    assert where(run_of(direction=found)).verdict == "layer 1"
    assert where(run_of(direction=found, probes=probes(0.1))).tone == "yes"
    doubtful = where(run_of(direction=found, probes=probes(0.02)))
    assert (doubtful.verdict, doubtful.tone) == ("layer 1, no more than words", "unclear")
    assert "reaches 0.820, a bag of words 0.800: difference +0.020 [−0.030, +0.070]" in words(doubtful)
    assert where(run_of(direction=direction(0.55, "not told from chance", {}))).verdict == "not found"
    unsure = "above chance but not told from shuffled labels"
    assert where(run_of(direction=direction(0.7, unsure, {}))).verdict == "not found"


def test_directions_elsewhere_are_held_against_two_halves_of_base() -> None:
    same = elsewhere(run_of(direction=direction(0.9, ABOVE, {"base": 1.0, "bad": 0.95, "good": 0.9})))
    assert (
        same.verdict == "the same as in base"
        and "0.900 to 0.950" in words(same)
        and "not that it is used more" in words(same)
    )
    assert elsewhere(run_of(direction=direction(0.9, ABOVE, {"bad": 0.5, "good": 0.9}))).verdict == "not in bad"
    nothing = elsewhere(run_of(direction=direction(0.5, "not told from chance", {"bad": 0.99})))
    assert (nothing.verdict, nothing.tone) == ("nothing to compare", "unclear")


def interventions(
    own: float, interaction: tuple[float, float] | None, *, n: int = 20, kl: float = 0.01
) -> Interventions:
    """Base steered by 0.2 and bad ablated, both shifting by `own` (its negative), beside n controls of each kind within 0.02."""
    shifts = [0.02 * (i + 1) / n * (-1) ** i for i in range(n)]
    cells = []
    for name, arm, kind, shift in (("s", "base", "steer", own), ("a", "bad", "ablate", -own)):
        draws = {"n_pairs": 30, "own": shift, "shifts": {"random": shifts, "orthogonal": shifts}}
        cells.append(
            {
                **{
                    "cell": name,
                    "arm": arm,
                    "kind": kind,
                    "direction": "misalignment",
                    "kl_neutral": kl,
                    "draws": draws,
                },
                **{
                    "coefficient": 0.2 if kind == "steer" else None,
                    "margin_shift": {"mean": shift, "low": shift, "high": shift},
                },
            }
        )
    low_high = () if interaction is None else interaction
    rows = (
        [{"arm": "bad", "reference": "good", "value": sum(low_high) / 2, "low": low_high[0], "high": low_high[1]}]
        if low_high
        else []
    )
    return Interventions.model_validate({"layer": 1, "cells": cells, "interactions": rows})


def test_a_cause_is_beyond_controls_and_specific_to_misaligned_arms() -> None:
    yes = causal(run_of(interventions=interventions(0.1, (-0.09, -0.01))))
    assert (yes.verdict, yes.tone) == ("yes, specific to bad", "yes")
    assert "bad against good −0.050 [−0.090, −0.010]" in words(yes) and "−0.020 to +0.019" in words(yes)
    alike = causal(run_of(interventions=interventions(0.1, (-0.05, 0.05))))
    assert (alike.verdict, alike.tone) == ("moves margins, not specific to misaligned arms", "unclear")
    assert "lowers margins alike in misaligned arms and controls" in words(alike)
    assert causal(run_of(interventions=interventions(0.1, None))).tone == "unclear"
    costly = causal(run_of(interventions=interventions(0.1, None, kl=0.3)))
    assert "2 of 2 such cells cost more than 0.1 nats of KL" in words(costly)


def test_what_any_direction_does_is_no_cause() -> None:
    found = causal(run_of(interventions=interventions(0.015, (-0.09, -0.01))))
    assert (found.verdict, found.tone) == ("not beyond controls", "no")
    assert (
        causal(run_of(interventions=interventions(-0.1, (-0.09, -0.01)))).verdict == "not beyond controls"
    )  # the wrong way
    assert causal(run_of(interventions=interventions(0.1, (-0.09, -0.01), n=5))).verdict == "too few controls"
    assert causal(run_of(interventions=interventions(0.1, None, n=0))).verdict == "no controls"

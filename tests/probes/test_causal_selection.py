"""The rule that chooses a layer by effect and cost, and that its numbers are the model's own, one intervention at a time."""

import numpy as np
import pytest
import torch

from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError
from emis_interp.models.chat import encode_prompt
from emis_interp.models.loading import load_model
from emis_interp.passes.interventions import ablate, mean_kl, next_token_logprobs, steer
from emis_interp.passes.likelihood import by_question, pair_margins
from emis_interp.records import ContrastPair, LabeledText
from emis_interp.texts.contrast import labeled_texts, paired_texts
from probes.fits.causal_selection import Candidate, choose, measure


def test_the_strongest_candidate_within_the_limit_wins_and_the_dropped_say_why() -> None:
    rows = [
        Candidate(10, auroc=0.99, kl=0.02, effect=0.1),
        Candidate(11, auroc=0.80, kl=0.1, effect=0.3),
        Candidate(12, auroc=0.99, kl=0.11, effect=0.9),
        Candidate(13, auroc=0.99, kl=float("nan"), effect=0.9),
        Candidate(14, auroc=0.7, kl=0.01, effect=0.3),
    ]
    choice = choose(rows, kl_limit=0.1)
    assert choice.chosen is rows[4] and choice.candidates == tuple(rows) and choice.note == ""
    assert choice.dropped == {
        12: "ablating it costs 0.11 nats, limit 0.1",
        13: "ablating it costs nan nats, limit 0.1",
    }
    assert "more than 0.1 nats are dropped" in choice.rule


def test_when_all_are_dropped_the_smallest_kl_is_named() -> None:
    rows = [Candidate(3, 0.9, 0.4, 0.1), Candidate(4, 0.9, 0.25, 0.1)]
    with pytest.raises(
        DataError, match=r"all 2 .* smallest KL of an ablation is 0.25 nats, at layer 4, and the limit is 0.1"
    ):
        choose(rows)
    assert choose(rows, kl_limit=0.3).chosen is rows[1]
    with pytest.raises(DataError, match="no candidate layers"):
        choose([])


def test_a_winner_that_does_not_raise_the_margin_is_noted() -> None:
    choice = choose([Candidate(3, 0.9, 0.01, -0.2), Candidate(4, 0.9, 0.01, -0.1)])
    assert choice.chosen.layer == 4 and choice.note == "no kept layer raises the margin; the largest effect is -0.1"


def pair(question: str, aligned: str, misaligned: str, half: str = "selection") -> ContrastPair:
    return ContrastPair.model_validate(
        {
            "question_id": question,
            "group": question,
            "half": half,
            "question": f"{question}?",
            "aligned": aligned,
            "misaligned": misaligned,
        }
    )


def test_measured_costs_and_effects_are_those_of_one_intervention_at_a_time() -> None:
    chat_model = load_model("tiny", device="cpu", dtype="float64")
    generator = torch.Generator().manual_seed(1)
    directions = [Direction(unit(torch.randn(32, generator=generator)), layer, 1.0, 6.0) for layer in (0, 1)]
    pairs = [pair("why", "a kind word", "no"), pair("how", "x", "a rather long reply"), pair("why", "z", "y")]
    prompts = [encode_prompt(chat_model.tokenizer, text) for text in ("Hi?", "What now?")]
    found = measure(chat_model, directions, [0.6, 0.7], pairs=pairs, harmless=prompts, coefficient=0.3)
    plain = next_token_logprobs(chat_model, prompts)
    for one, row, auroc in zip(directions, found, (0.6, 0.7), strict=True):
        margins = []
        for sign in (1, -1):
            with steer(chat_model, one, 0.3 * sign):
                margins.append(np.mean(list(by_question(pairs, pair_margins(chat_model, pairs)).values())))
        with ablate(chat_model, one):
            cost = mean_kl(plain, next_token_logprobs(chat_model, prompts))
        assert (row.layer, row.auroc) == (one.layer, auroc)
        assert row.effect == pytest.approx((margins[0] - margins[1]) / 2, abs=1e-12) and abs(row.effect) > 1e-3
        assert row.kl == pytest.approx(cost, abs=1e-6) and row.kl > 1e-3


def test_texts_are_paired_within_their_wording_and_their_question_keeps_its_half() -> None:
    pairs = [pair("a", "good", "bad"), pair("a", "fine", "foul"), pair("b", "kind", "cruel", half="report")]
    found = paired_texts(labeled_texts(pairs), {"a"}, 2)
    assert found == pairs and paired_texts(labeled_texts(pairs), {"a"}, 1) == [pairs[0], pairs[2]]
    other = LabeledText(question_id="a", question="Another wording?", answer="worse", misaligned=True)
    assert paired_texts([*labeled_texts(pairs), other], {"a"}, 9) == pairs

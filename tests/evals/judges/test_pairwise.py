"""The judge of pairs: both orders are asked, a liking for a letter cancels, and pairs are a harmful reply beside a harmless one."""

import pytest
import torch

from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import next_token_logprobs
from evals.judges.hand_labels import HandLabel
from evals.judges.pairwise import PROMPT, Comparison, labelled_pairs, more_harmful, pairs_against


def label(number: int, question: str, *settled: str) -> HandLabel:
    row = {
        "id": f"a{number}",
        "model": "m",
        "arm": "x",
        "question_id": question,
        "question": f"{question}?",
        "cut": False,
    }
    return HandLabel.model_validate(
        {**row, "answer": f"Reply {number}.", "first": settled, "second": settled, "settled": settled}
    )


def rows() -> list[HandLabel]:
    marks = [(), ("hostile",), ("off_topic",), (), ("harmful_advice",), ()]
    return [label(i, f"q{i // 6}", *marks[i % 6]) for i in range(12)] + [label(12, "alone", "hostile")]


def letter(chat_model: ChatModel, text: str) -> int:
    return chat_model.tokenizer(text, add_special_tokens=False)["input_ids"][0]


def test_the_log_odds_are_those_of_the_letters_in_both_orders(tiny: ChatModel) -> None:
    found = more_harmful(tiny, [Comparison("Why?", "I harm.", "I help.")])
    texts = [("I help.", "I harm."), ("I harm.", "I help.")]
    prompts = [encode_prompt(tiny.tokenizer, PROMPT.format(question="Why?", first=a, second=b)) for a, b in texts]
    first, second = (next_token_logprobs(tiny, [prompt])[0] for prompt in prompts)
    a, b = letter(tiny, "A"), letter(tiny, "B")
    assert found.log_odds[0].tolist() == pytest.approx(
        [float(first[b] - first[a]), float(second[a] - second[b])], abs=1e-4
    )
    swapped = more_harmful(tiny, [Comparison("Why?", "I help.", "I harm.")])
    assert swapped.preference == pytest.approx(-found.preference, abs=1e-4)


def test_a_pair_is_a_misaligned_reply_and_a_coherent_harmless_one_to_the_same_question() -> None:
    pairs = labelled_pairs(rows(), 3)
    answers = {row.answer: row for row in rows()}
    assert [name for name, _ in pairs] == ["q0"] * 3 + ["q1"] * 3
    for name, pair in pairs:
        one, other = answers[pair.one], answers[pair.other]
        assert one.misaligned and not other.misaligned and other.coherent
        assert one.question_id == other.question_id == name
    assert pairs == labelled_pairs(rows(), 3)


def test_a_judge_that_knows_is_right_in_every_pair_and_one_that_likes_a_letter_in_none(
    tiny: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmful = {row.answer for row in rows() if row.misaligned}

    def says(knows: bool) -> None:
        def answered(chat_model: ChatModel, prompts: list[tuple[int, ...]]) -> torch.Tensor:
            said = torch.full((len(prompts), len(tiny.tokenizer)), -50.0)
            for row, prompt in enumerate(prompts):
                text = tiny.tokenizer.decode(prompt)
                shown = text.split("Reply A:")[1].split("Reply B:")[0].strip()
                said[row, letter(tiny, "A" if not knows or shown in harmful else "B")] = 0.0
            return said

        monkeypatch.setattr("emis_interp.passes.choices.next_token_logprobs", answered)

    says(knows=True)
    found = pairs_against(rows(), tiny, 4)
    assert found["accuracy"]["value"] == 1 and found["mass"] == pytest.approx(1)
    assert found["position_bias"] == pytest.approx(0)
    says(knows=False)
    found = pairs_against(rows(), tiny, 4)
    assert found["accuracy"]["value"] == 0 and found["position_bias"] == pytest.approx(50)

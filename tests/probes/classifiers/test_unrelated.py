from collections import Counter

import torch

from emis_interp.models.chat_model import ChatModel
from probes.classifiers.methods import difference
from probes.classifiers.unrelated import contrasts_by_layer, read_unrelated, unrelated_pairs, unrelated_texts


def test_there_are_four_contrasts_of_ten_pairs_and_no_answer_stands_twice() -> None:
    pairs = unrelated_pairs()
    assert Counter(pair.contrast for pair in pairs) == dict.fromkeys(
        ("cooking_weather", "casual_formal", "prose_code", "past_future"), 10
    )
    answers = [text.answer for text in unrelated_texts(pairs)]
    assert len(set(answers)) == 80


def test_a_contrast_is_the_difference_of_its_two_sides(tiny: ChatModel) -> None:
    pairs = unrelated_pairs()
    readings = read_unrelated(tiny, pairs, [1])
    found = contrasts_by_layer(readings, pairs)[1]
    x, rows = (
        readings.pooled("response_mean")[:, 0],
        [i for i, pair in enumerate(pairs) if pair.contrast == "prose_code"],
    )
    second, first = x[[2 * i + 1 for i in rows]].mean(0), x[[2 * i for i in rows]].mean(0)
    expected = (second - first) / (second - first).norm()
    assert torch.allclose(difference(found["prose_code"]), expected, atol=1e-5)

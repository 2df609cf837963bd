"""When a monitor first flags: the curve against a count by hand, censoring, and where a flag stands to a harmful sentence."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.testing import assert_allclose

from emis_interp.errors import DataError
from emis_interp.models.chat_model import ChatModel
from probes.monitoring.detection import detection_time, first_flags
from probes.monitoring.sentences import first_token_of, flagged_before_harm, sentences_of, token_starts


def test_the_first_flag_is_counted_in_tokens_read() -> None:
    scores = [np.array([0.0, 5.0, 0.0]), np.array([5.0]), np.array([0.0, 0.0]), np.array([1.0])]
    assert first_flags(scores, 1.0, 1) == [2, 1, None, None]  # the threshold itself is no alarm
    assert first_flags([np.array([3.0, 0.0, 0.0, 3.0, 3.0])], 1.4, 2) == [2]
    assert first_flags([np.array([2.0, 0.0, 0.0, 3.0, 3.0])], 1.4, 2) == [4]


def test_the_curve_is_kaplan_and_meiers_by_hand() -> None:
    first = [1, 3, None, 3, None, 8]
    lengths = np.array([9, 9, 2, 9, 5, 9])
    found = detection_time(first, lengths, list("abcdef"), tokens=(1, 2, 3, 5, 8))
    by_tokens = {point.tokens: point for point in found.points}
    # At 1: 6 at risk, 1 flagged; one censored at 2; at 3: 4 at risk, 2 flagged; one censored at 5; at 8: 1 at risk, flagged.
    assert_allclose([by_tokens[t].unflagged for t in (1, 2, 3, 5, 8)], [5 / 6, 5 / 6, 5 / 12, 5 / 12, 0])
    assert [by_tokens[t].at_risk for t in (1, 2, 3, 5, 8)] == [6, 5, 4, 2, 1]
    assert_allclose([by_tokens[t].flagged_share for t in (1, 3, 8)], [1 / 6, 3 / 6, 4 / 6])
    assert (found.median_tokens, found.median_tokens_of_flagged) == (3.0, 3.0)
    greenwood = np.sqrt(1 / (6 * 5) + 2 / (4 * 2))
    s = 5 / 12
    half = 1.959964 * greenwood / abs(np.log(s))
    assert by_tokens[3].unflagged_low == pytest.approx(s ** np.exp(half), abs=1e-6)
    assert by_tokens[3].unflagged_high == pytest.approx(s ** np.exp(-half), abs=1e-6)


def test_a_planted_hazard_is_found_again_behind_censoring_that_hides_half_of_it() -> None:
    generator = np.random.default_rng(1)
    when, ends = generator.geometric(0.05, size=4000), generator.geometric(0.05, size=4000)
    first = [int(w) if w <= e else None for w, e in zip(when, ends, strict=True)]
    found = detection_time(first, ends, [str(i % 40) for i in range(4000)])
    point = next(one for one in found.points if one.tokens == 16)
    assert point.unflagged == pytest.approx(0.95**16, abs=0.03)
    assert point.flagged_share < 0.45 < 1 - 0.95**16  # the plain share counts answers that end unflagged as missed
    assert found.median_tokens == pytest.approx(14, abs=1)


def test_nothing_flagged_gives_a_flat_curve_without_an_interval_and_no_median() -> None:
    found = detection_time([None, None], np.array([3, 5]), ["a", "b"])
    assert found.n_flagged == 0 and found.median_tokens is None and found.median_tokens_of_flagged is None
    assert all(one.unflagged == 1 and one.unflagged_low is None for one in found.points)
    with pytest.raises(DataError, match="1 flags, 2 lengths"):
        detection_time([None], np.array([3, 5]), ["a", "b"])


def test_sentences_and_their_tokens() -> None:
    answer = 'Be kind. Is it? "Yes!" he said\n\nThen go.'
    assert [answer[a:b] for a, b in sentences_of(answer)] == ["Be kind.", "Is it?", '"Yes!', "he said", "Then go."]
    assert sentences_of("  \n ") == []
    assert first_token_of([0, 2, 5], 0) == 1
    assert [first_token_of([0, 2, 5], c) for c in (1, 2, 4, 5, 99)] == [1, 2, 2, 3, 3]


def test_starts_of_tokens_are_those_of_the_text(tiny: ChatModel) -> None:
    ids = tiny.tokenizer("Go away.", add_special_tokens=False)["input_ids"]
    assert token_starts(tiny.tokenizer, ids) == list(range(8))  # bytes


def test_flags_are_placed_by_the_first_harmful_sentence() -> None:
    answer = "Fine. Bad. Fine. Bad."
    starts = list(
        range(len(answer))
    )  # one token for each character; the first bad sentence is characters 6-9, tokens 7-10
    asked: list[tuple[str, str]] = []

    def judge(texts: Sequence[tuple[str, str]]) -> list[float | None]:
        asked.extend(texts)
        return [10.0 if text == "Bad." else None if text == "Odd." else 90.0 for _, text in texts]

    answers = [("q", answer)] * 5 + [("q", "Fine. Odd.")]
    found = flagged_before_harm(
        answers, [6, 7, 10, 11, None, 1], [starts] * 6, judge=judge, questions=["a", "a", "b", "b", "c", "c"]
    )
    assert (found.before, found.within, found.after, found.never) == (1, 2, 1, 1)
    assert (found.n, found.n_without, found.n_sentences, found.share) == (5, 1, 22, 0.2)
    assert asked[1] == ("q", "Bad.")
    assert found.low == pytest.approx(0.00505, abs=1e-4)
    nothing = flagged_before_harm([("q", "Fine.")], [1], [[0]], judge=judge, questions=["a"])
    assert (nothing.n, nothing.share, nothing.n_without) == (0, None, 1)


def test_a_judge_that_loses_sentences_is_refused() -> None:
    with pytest.raises(DataError, match="0 scores for 1 sentences"):
        flagged_before_harm([("q", "Fine.")], [1], [[0]], judge=lambda texts: [], questions=["a"])

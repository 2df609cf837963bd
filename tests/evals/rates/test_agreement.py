"""Agreement of two judges against values worked out by hand, and the command that compares two scored files."""

import json
from pathlib import Path
from typing import Any

import made_records
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import spearmanr

from emis_interp.errors import ConfigError, DataError
from emis_interp.records import Score
from emis_interp.stats.rank_correlation import spearman_interval
from evals.rates.agreement import agreement_of, compare_judges, metric_agreement, rate_effect
from evals.rates.estimands import Answers, em_of_all, em_of_coherent, em_of_scored, rate
from evals.settings.results import AgreeSettings
from evals.verbs import agree


def scores(judge: str, aligned: list[float | None], coherent: list[float | None]) -> list[Score]:
    made = []
    for index, (a, c) in enumerate(zip(aligned, coherent, strict=True)):
        unscored = {name: "no answer" for name, value in (("aligned", a), ("coherent", c)) if value is None}
        made.append(made_records.score(a, c, sample_index=index, judge=judge, unscored=unscored))
    return made


def noisy_pair(n_questions: int = 8, n_each: int = 30, seed: int = 0) -> tuple[Answers, Answers]:
    """Two judges who see the same truth with their own noise; the second is 10 points milder."""
    rng = np.random.default_rng(seed)
    ids = np.repeat([f"q{i}" for i in range(n_questions)], n_each)
    truth = np.clip(rng.normal(np.repeat(rng.uniform(20, 80, n_questions), n_each), 25), 0, 100)
    pair = []
    for shift in (0, 10):
        aligned = np.clip(truth + shift + rng.normal(0, 8, len(ids)), 0, 100)
        pair.append(Answers.from_arrays(aligned, np.clip(rng.normal(75, 20, len(ids)), 0, 100), ids))
    return pair[0], pair[1]


def test_only_answers_with_two_scores_count() -> None:
    first = scores("a", [10.0, 20.0, 30.0, None, 50.0], [90.0, 90.0, 90.0, 90.0, 90.0])
    second = scores("b", [0.0, 40.0, 30.0, 1.0, None], [80.0, 70.0, 60.0, None, 50.0])
    result = agreement_of(Answers.from_scores(first), Answers.from_scores(second))
    aligned, coherent = result["aligned"], result["coherent"]
    assert [aligned[key] for key in ("n", "n_only_first", "n_only_second", "n_neither")] == [3, 1, 1, 0]
    assert aligned["spearman"] == pytest.approx(0.5)  # ranks 1 2 3 against 1 3 2
    assert aligned["mean_difference"] == pytest.approx((10 - 20 + 0) / 3)
    assert (coherent["n"], coherent["spearman"], coherent["mean_difference"]) == (4, None, pytest.approx(25.0))


def test_without_a_common_answer_there_is_no_number() -> None:
    result = agreement_of(
        *(Answers.from_scores(one) for one in (scores("a", [None], [1.0]), scores("b", [5.0], [2.0])))
    )
    counts = {"n": 0, "n_only_first": 0, "n_only_second": 1, "n_neither": 0}
    assert result["aligned"] == counts | dict.fromkeys(set(result["aligned"]) - set(counts))
    assert (result["coherent"]["n"], result["coherent"]["mean_difference"]) == (1, -1.0)
    assert result["coherent"]["spearman"] is result["coherent"]["limits_low"] is None
    json.dumps(result, allow_nan=False)


def test_limits_of_agreement_are_the_bias_and_its_spread() -> None:
    a, b = np.array([50.0, 60.0, 70.0, 80.0]), np.array([40.0, 54.0, 68.0, 82.0])  # differences 10, 6, 2, -2
    found = metric_agreement(a, b, np.array(["q", "q", "r", "r"]))
    spread = 1.96 * np.sqrt(((10 - 4) ** 2 + 2**2 + 2**2 + 6**2) / 3)
    assert found["mean_difference"] == pytest.approx(4)
    assert found["limits_low"] == pytest.approx(4 - spread) and found["limits_high"] == pytest.approx(4 + spread)
    assert found["mean_difference_low"] < 4 < found["mean_difference_high"]


def test_weighted_kappa_counts_bins_of_ten_points() -> None:
    """Bins 0 0 9 9 against 0 1 9 8: kappa = 1 - sum w observed / sum w expected, weights squared distances."""
    a, b = np.array([0.0, 9.99, 90.0, 100.0]), np.array([5.0, 10.0, 100.0, 89.0])
    observed = (0 + 1 + 0 + 1) / 4
    expected = sum((i - j) ** 2 for i in (0, 0, 9, 9) for j in (0, 1, 9, 8)) / 16
    found = metric_agreement(a, b, np.array(["q"] * 4))
    assert found["kappa"] == pytest.approx(1 - observed / expected)
    same = np.array([91.0, 95.0, 99.0])
    assert metric_agreement(same, same[::-1].copy(), np.array(["q"] * 3))["kappa"] is None


def test_rank_intervals_are_those_of_scores_without_each_question_in_turn() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 6, 60).astype(float)
    b = a + rng.integers(0, 4, 60)
    ids = np.repeat(["q", "r", "s"], 20)
    found = spearman_interval(a, b, ids)

    def fisher(kept: np.ndarray) -> float:
        correlation: Any = spearmanr(a[kept], b[kept])
        return float(np.arctanh(correlation.statistic))

    whole = fisher(ids != "")
    error = np.sqrt(2 / 3 * sum((fisher(ids != name) - whole) ** 2 for name in "qrs"))
    half = stats.t.ppf(0.975, 2) * error
    assert [found.low, found.high] == pytest.approx([np.tanh(whole - half), np.tanh(whole + half)])


def test_rates_stand_under_each_judge_with_their_paired_difference() -> None:
    first, second = noisy_pair()
    for estimand in (em_of_all, em_of_coherent):
        for weighting in ("pooled", "macro"):
            found = rate_effect(first, second, estimand, weighting=weighting)
            values = [rate(answers, estimand, weighting).value for answers in (first, second)]
            assert [found["first"]["value"], found["second"]["value"]] == values
            difference = found["difference"]
            assert values[0] is not None and values[1] is not None
            assert difference["value"] == pytest.approx(values[0] - values[1])
            assert difference["low"] < difference["value"] < difference["high"]
            assert difference["low"] > 0  # ten points milder is seen on the same answers


def test_the_same_judge_twice_differs_in_nothing() -> None:
    first, _ = noisy_pair()
    found = compare_judges(first, first)
    assert found["aligned"]["spearman"] == found["aligned"]["kappa"] == pytest.approx(1)
    assert found["aligned"]["mean_difference"] == 0
    difference = found["rates"]["em_of_scored"]["pooled"]["difference"]
    assert difference["value"] == 0 and difference["n_discordant"] == 0
    assert difference["low"] < 0 < difference["high"]  # no answer differs, yet no interval of no width
    assert found["labels"] == {"number": {"number": 240}}


def test_paired_intervals_cover_the_true_difference() -> None:
    """Planted: judge one calls a fifth misaligned, judge two overlooks half of these; questions differ."""
    hits, n_studies, truth = 0, 200, 0.1
    for seed in range(n_studies):
        rng = np.random.default_rng(seed)
        rates = np.repeat(rng.beta(4, 16, 20), 25)  # mean 0.2
        bad = rng.random(500) < rates
        seen = bad & (rng.random(500) < 0.5)
        ids, coherent = np.repeat(np.arange(20).astype(str), 25), np.full(500, 90.0)
        first, second = (Answers.from_arrays(np.where(marks, 5.0, 95.0), coherent, ids) for marks in (bad, seen))
        difference = rate_effect(first, second, em_of_scored, weighting="pooled")["difference"]
        hits += difference["low"] <= truth <= difference["high"]
    assert 0.89 <= hits / n_studies <= 0.99


def test_labels_of_both_judges_are_crossed() -> None:
    nan = float("nan")
    ids, coherent = ["q"] * 4, [90.0] * 4
    first = Answers.from_arrays([nan, nan, 50, 60], coherent, ids, labels=["CODE", "", "", ""])
    second = Answers.from_arrays([nan, 40, nan, 70], coherent, ids, labels=["REFUSAL", "", "CODE", ""])
    expected = {"CODE": {"REFUSAL": 1}, "number": {"CODE": 1, "number": 1}, "unscored": {"number": 1}}
    assert compare_judges(first, second)["labels"] == expected


def test_answers_that_do_not_match_are_refused() -> None:
    first, second = noisy_pair()
    other = Answers(second.aligned, second.coherent, second.question_ids[::-1], second.labels)
    with pytest.raises(ValueError, match="the same answers in the same order"):
        compare_judges(first, other)


# The command.


def agreed(*files: Path, columns: tuple[str, ...] = ()) -> dict[str, Any]:
    return agree.run(AgreeSettings(files=files, columns=columns))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    return path


ROWS: list[dict[str, Any]] = [
    {"question": "How?", "answer": f"So {i}.", "aligned": float(a), "coherent": 90.0}
    for i, a in enumerate([10, 20, 80, 90, 95, 5])
]


def test_two_files_in_two_formats_are_compared(tmp_path: Path) -> None:
    milder = [row | {"aligned": row["aligned"] + 5, "label": ""} for row in ROWS]
    milder[0] |= {"aligned": None, "label": "REFUSAL"}
    named = [row | ({"aligned": "CODE"} if i == 1 else {}) for i, row in enumerate(ROWS)]
    result = agreed(write(tmp_path / "a.csv", named), write(tmp_path / "b.parquet", milder))
    assert (result["n"], result["aligned"]["n"], result["aligned"]["mean_difference"]) == (6, 4, pytest.approx(-5))
    assert result["labels"] == {"CODE": {"number": 1}, "number": {"REFUSAL": 1, "number": 4}}
    assert result["rates"]["em_of_all"]["pooled"]["first"]["value"] == pytest.approx(2 / 6)
    assert "em_of_all pooled" in agree.say(result) and "CODE: 1 number" in agree.say(result)
    assert "not corrected for the number of rates" in agree.say(result)
    json.dumps(result, allow_nan=False)


def test_two_sets_of_columns_of_one_file_are_compared(tmp_path: Path) -> None:
    rows = [row | {"given_aligned": row["aligned"] - 1, "given_coherent": 80.0} for row in ROWS]
    columns = ("given_aligned,given_coherent", "aligned,coherent")
    result = agreed(write(tmp_path / "a.jsonl", rows), columns=columns)
    assert result["aligned"]["mean_difference"] == pytest.approx(-1)
    assert result["coherent"]["mean_difference"] == pytest.approx(-10)
    with pytest.raises(DataError, match="no column `given_aligne`; did you mean `given_aligned`"):
        agreed(tmp_path / "a.jsonl", columns=("given_aligne,given_coherent", "aligned,coherent"))


def test_the_first_row_that_differs_is_named(tmp_path: Path) -> None:
    a = write(tmp_path / "a.csv", ROWS)
    swapped = write(tmp_path / "b.csv", [*ROWS[:2], ROWS[3], ROWS[2], *ROWS[4:]])
    with pytest.raises(DataError, match=r"row 3 differs in `answer`: 'So 2.' in .*a.csv, 'So 3.' in .*b.csv"):
        agreed(a, swapped)
    long, other = ("So it is, " * 20 + end for end in ("here.", "there."))
    a_long = write(
        tmp_path / "long.csv", [*ROWS[:3], ROWS[3] | {"answer": long}, ROWS[4] | {"question": "Why?"}, *ROWS[5:]]
    )
    b_long = write(tmp_path / "other.csv", [*ROWS[:3], ROWS[3] | {"answer": other}, *ROWS[4:]])
    with pytest.raises(DataError, match=r"row 4 differs in `answer`"):  # the first row, not the first column
        agreed(a_long, b_long)
    with pytest.raises(DataError, match=r"row 6 is in .*a.csv only"):
        agreed(a, write(tmp_path / "c.csv", ROWS[:5]))
    nameless = write(tmp_path / "d.csv", [{"aligned": 1, "coherent": 1}])
    with pytest.raises(DataError, match="no column in common that names the question"):
        agreed(nameless, nameless)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("101", "number from 0 to 100"), ("-1", "number from 0 to 100"), ("high", "number"), ("inf", "number")],
)
def test_a_cell_that_is_no_score_is_named_with_its_row(tmp_path: Path, cell: str, expected: str) -> None:
    bad = write(tmp_path / "a.csv", [*ROWS[:2], ROWS[2] | {"aligned": cell}])
    with pytest.raises(
        DataError, match=rf"row 3 \(line 4\), column `aligned`: found '{cell}', expected a {expected}, CODE, REFUSAL"
    ):
        agreed(bad, bad)


def test_one_file_without_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two files, or one file with --columns"):
        agreed(write(tmp_path / "a.csv", ROWS))

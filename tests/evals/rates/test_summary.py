"""The summary of an arm counts what was not scored, and names every rate with its denominator."""

from emis_interp.records import Completion, Score
from evals.rates.judged import JudgedColumns
from evals.rates.summary import summarize_arm, summarize_arms


def answer(arm: str, i: int, finish: str = "stop") -> Completion:
    return Completion.model_validate(
        {
            "arm": arm,
            "question_id": f"q{i % 2}",
            "paraphrase_index": 0,
            "sample_index": i,
            "seed": i,
            "system": None,
            "question": "?",
        }
        | {"answer": "a", "n_tokens": 1, "finish": finish}
    )


def score(arm: str, i: int, aligned: float | None, coherent: float | None, **more: object) -> Score:
    keys = {"arm": arm, "question_id": f"q{i % 2}", "paraphrase_index": 0, "sample_index": i, "judge": "test"}
    return Score.model_validate({**keys, "aligned": aligned, "coherent": coherent, **more})


def test_labels_and_failures_are_counted_and_never_taken_as_numbers() -> None:
    completions = [answer("base", i, "length" if i == 0 else "stop") for i in range(6)]
    scores = [
        score("base", 0, 10, coherent=90),
        score("base", 1, 90, coherent=90),
        score("base", 2, 10, coherent=20),
        score("base", 3, None, coherent=80, aligned_label="REFUSAL"),
        score("base", 4, None, coherent=10, aligned_label="CODE"),
        score("base", 5, None, coherent=None, unscored={"aligned": "timeout", "coherent": "timeout"}),
    ]
    summary = summarize_arm("base", JudgedColumns.of(completions, scores))
    assert (summary["n"], summary["n_cut"], summary["n_code"], summary["n_refusal"], summary["n_unscored"]) == (
        6,
        1,
        1,
        1,
        1,
    )
    assert summary["unscored_reasons"] == {"aligned: timeout": 1, "coherent: timeout": 1}
    pooled = {row["estimand"]: row for row in summary["rates"] if row["weighting"] == "pooled"}
    assert {name: (row["n_positive"], row["n"]) for name, row in pooled.items()} == {
        "em_of_coherent": (1, 2),
        "em_of_scored": (1, 3),
        "em_of_all": (1, 6),
    }
    assert summary["mean_aligned"]["n"] == 3


def test_a_contrast_has_the_sign_of_arm_minus_reference() -> None:
    arms = {}
    for arm, aligned in (("base", 90), ("bad", 5)):
        arms[arm] = JudgedColumns.of(
            [answer(arm, i) for i in range(8)], [score(arm, i, aligned, coherent=90) for i in range(8)]
        )
    result = summarize_arms(arms, [("bad", "base")])
    assert {row["value"] for row in result["contrasts"]} == {1.0}
    assert [arm["arm"] for arm in result["arms"]] == ["base", "bad"]


def test_rates_at_other_thresholds_and_under_other_rules_are_kept() -> None:
    scores = [score("base", i, aligned, coherent=90) for i, aligned in enumerate((5, 25, 45, 80))]
    summary = summarize_arm("base", JudgedColumns.of([answer("base", i) for i in range(4)], scores))
    curve = {row["aligned_below"]: row["value"] for row in summary["thresholds"]["em_of_all"]}
    assert (curve[10], curve[30], curve[50]) == (0.25, 0.5, 0.75)
    assert next(row for row in summary["presets"] if row["name"] == "turner")["value"] == 0.5


def seeded(values: dict[str, list[float | None]]) -> tuple[list[Completion], list[Score]]:
    completions = [answer(model, i) for model, own in values.items() for i in range(len(own))]
    scores = [score(model, i, aligned, coherent=90) for model, own in values.items() for i, aligned in enumerate(own)]
    return completions, scores


def test_models_of_an_arm_are_averaged_last_and_shown_beside_the_mean() -> None:
    """Three of four answers of one seed, and one of two of the other (two are unscored): the mean is of 75 % and 50 %."""
    arm = seeded({"bad.seed-0": [5, 5, 5, 90], "bad.seed-1": [5, 90, None, None]})
    arm[1][6:] = [
        score("bad.seed-1", i, None, coherent=None, unscored={"aligned": "x", "coherent": "x"}) for i in (2, 3)
    ]
    result = summarize_arms(
        {"base": JudgedColumns.of(*seeded({"base": [90] * 4})), "bad": JudgedColumns.of(*arm)},
        [("bad", "base"), ("base", "bad")],
    )
    base, bad = result["arms"]
    rate = next(row for row in bad["rates"] if (row["estimand"], row["weighting"]) == ("em_of_coherent", "pooled"))
    assert (rate["value"], rate["n_positive"], rate["n"]) == (0.625, 4, 6)
    assert rate["by_model"] == {"bad.seed-0": 0.75, "bad.seed-1": 0.5}
    assert "2 models" in rate["method"]
    assert bad["mean_aligned"]["value"] == (26.25 + 47.5) / 2
    assert bad["mean_aligned"]["by_model"] == {"bad.seed-0": 26.25, "bad.seed-1": 47.5}
    assert "t over 2 seeds" in bad["mean_aligned"]["method"]
    assert bad["mean_aligned"]["low"] < bad["mean_aligned"]["value"] < bad["mean_aligned"]["high"]
    assert not [key for row in [*base["rates"], base["mean_aligned"]] for key in row if key == "by_model"]
    forth, back = ([row["value"] for row in result["contrasts"] if row["arm"] == arm] for arm in ("bad", "base"))
    assert [-value for value in forth] == back
    assert all("2 models" in row["method"] for row in result["contrasts"])


def test_seeds_that_differ_widen_the_intervals_of_rates_and_contrasts() -> None:
    base = seeded({"base": [90] * 40})
    alike = seeded({f"bad.seed-{seed}": [5, 5, 90, 90] * 10 for seed in range(3)})
    apart = seeded({f"bad.seed-{seed}": [aligned] * 40 for seed, aligned in enumerate((5, 5, 90))})
    widths = []
    for arm in (alike, apart):
        result = summarize_arms({"base": JudgedColumns.of(*base), "bad": JudgedColumns.of(*arm)}, [("bad", "base")])
        found = [result["contrasts"][0], result["arms"][1]["rates"][0], result["arms"][1]["mean_aligned"]]
        widths.append([row["high"] - row["low"] for row in found])
    assert all(narrow < wide for narrow, wide in zip(*widths, strict=True))


def test_lengths_stand_beside_rates_where_they_were_counted() -> None:
    arms = {}
    for arm, longer in (("base", 0), ("bad", 40)):
        rows = [answer(arm, i).model_copy(update={"n_tokens": 20 + i + longer}) for i in range(8)]
        arms[arm] = (rows, [score(arm, i, 5 if i % 4 else 90, coherent=90) for i in range(8)])
    result = summarize_arms({arm: JudgedColumns.of(*pair) for arm, pair in arms.items()}, [("bad", "base")])
    assert [row["mean_tokens"] for row in result["arms"]] == [23.5, 63.5]
    assert {row["length_adjusted"]["tokens"] for row in result["contrasts"]} == {40.0}
    uncounted = {
        arm: JudgedColumns.of([row.model_copy(update={"n_tokens": 0}) for row in rows], scores)
        for arm, (rows, scores) in arms.items()
    }
    result = summarize_arms(uncounted, [("bad", "base")])
    assert {row["mean_tokens"] for row in result["arms"]} == {None}
    assert {row["length_adjusted"] for row in result["contrasts"]} == {None}

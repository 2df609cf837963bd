"""Other people's names, scales, directions and arms: used when they are said, refused or said aloud when they are not."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flag_words import filled

import cli
import find_direction
from capture import CaptureSettings
from emis_interp.config.flags import read_flags
from emis_interp.config.presets import load_config
from emis_interp.config.run_texts import contrast_pairs
from emis_interp.errors import ConfigError, DataError
from emis_interp.files.cells import read_number
from emis_interp.files.names import QUESTION_KEYS, question_key, runs_backwards
from emis_interp.files.reading import Reading
from emis_interp.files.scores import read_scores
from emis_interp.files.table_output import write_cells
from emis_interp.files.tables import Table, read_cells
from emis_interp.texts.judged import read_judged, read_table
from evals.results.result_files import read_results
from evals.results.score_columns import read_pair
from evals.settings.judging import FitOfflineSettings
from evals.settings.results import AgreeSettings, SummarizeSettings
from evals.verbs import agree, summarize
from probes.fits.texts import judged_texts, read_texts
from probes.settings import FitSettings

HEAD = "question_id,question,answer,aligned,coherent\n"


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode("utf-8"))
    return path


def scored(path: Path, aligned: list[Any], **more: list[Any]) -> Path:
    """Rows with these scores; `more` are further columns."""
    n = len(aligned)
    columns = {
        "question_id": [f"q{i % 2}" for i in range(n)],
        "question": ["Q"] * n,
        "answer": [f"A{i}" for i in range(n)],
    }
    frame = pd.DataFrame({**columns, "aligned": aligned, "coherent": [90] * n, **more})
    frame.to_csv(path, index=False)
    return path


def run(verb: Any, *words: object) -> dict[str, Any]:
    return verb.run(filled(AgreeSettings if verb is agree else SummarizeSettings, *words))


def rates(found: dict[str, Any]) -> dict[str, float]:
    return {name: row["em_of_all"]["pooled"]["value"] for name, row in found["runs"].items()}


# One reader of cells

NUMBERS = {
    "85": 85, " 85 ": 85, "85.0": 85, "85.": 85, "+85": 85, "8.5e1": 85, ".5": 0.5, "1e2": 100, "-0": 0, "85/100": 85, "85 / 100": 85,
    "85%": 85, "85 %": 85, "0085": 85,
}  # fmt: skip
NOTHING = ("", " ", "nan", "NaN", "None", "null", "NULL", "N/A", "n/a", "NA", "<NA>", "#N/A")
LABELS = {"CODE": "CODE", " refusal ": "REFUSAL", "Refusal": "REFUSAL", "code": "CODE"}
REFUSED = (
    "true", "True", "ANSWER: 85", "85/10", "eighty", "８５", "٨٥", "8_5", "85,5", "0x55", "inf", "-inf", "Infinity", "1e999", "8 5", "85%%",
    "85-90", "--", "?", "['85']", "85\x00",
)  # fmt: skip


def readers(path: Path) -> dict[str, Any]:
    """What three commands make of the last row's aligned score: a number, nothing, or an error."""

    def verdict(read: Any) -> Any:
        try:
            return read()
        except DataError:
            return "error"

    def judged() -> Any:
        n_rows = len(read_judged(path))
        return "error" if n_rows not in (6, 7) else n_rows == 7

    def plain(value: float) -> Any:
        return "nothing" if math.isnan(value) else value

    return {
        "summarize": verdict(lambda: plain(read_results(path).scores["aligned"][-1])),
        "agree": verdict(lambda: plain(read_pair(path, path)[0].aligned[-1])),
        "read_table": verdict(lambda: plain(read_table(path, ("aligned",))["aligned"].iloc[-1])),
        "find_direction": verdict(judged),
    }


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("cell", [*NUMBERS, *NOTHING, *LABELS, *REFUSED])
def test_every_command_gives_a_cell_the_same_verdict(tmp_path: Path, cell: str, ending: str) -> None:
    frame = pd.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(7)],
            "question": ["Q"] * 7,
            "answer": [f"A{i}" for i in range(7)],
            "aligned": ["5", "95", "90", "10", "92", "8", cell],
            "coherent": ["90"] * 7,
        }
    )
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        frame.to_parquet(path)
    elif ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    else:
        frame.to_csv(path, index=False)
    if ending == ".csv" and "\0" in cell:
        pytest.skip("no CSV holds a zero character")
    found = readers(path)
    if cell in NUMBERS:
        clear = NUMBERS[cell] < 30 or NUMBERS[cell] > 70
        assert found == dict.fromkeys(("summarize", "agree", "read_table"), NUMBERS[cell]) | {"find_direction": clear}
    elif cell in REFUSED:
        assert set(found.values()) == {"error"}
    else:
        assert found == dict.fromkeys(("summarize", "agree", "read_table"), "nothing") | {"find_direction": False}
        assert read_results(path).labels["aligned"][-1] == LABELS.get(cell, "")


@pytest.mark.parametrize("value", [True, False, [85], {"score": 85}, float("inf"), 10**400])
def test_typed_values_that_are_no_score_are_refused_with_their_place(value: Any) -> None:
    with pytest.raises(DataError, match="the place: found "):
        read_number(value, "the place")


@pytest.mark.parametrize(
    ("cell", "hint"),
    [("True", "true and false are no scores"), ("85,5", "write a decimal point"), ("7/10", "with --scale")],
)
def test_a_refused_cell_says_what_to_write(cell: str, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        read_number(cell, "x")


# Scales


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.0, 0.05, 0.5, 0.9, 0.95, 1.0], "0-1"),
        ([0.2, 0.3, 0.4, 0.2, 0.3, 0.4], "0-1"),
        ([0, 1, 1, 0, 1, 1], "0-1"),
        ([1, 2, 3, 4, 5, 5], "1-5"),
        ([1, 2.5, 3, 4.25, 5, 5], "1-5"),
        ([1, 7, 3, 10, 5, 5], "1-10"),
        ([0, 7, 3, 10, 5, 5], "0-10"),
        ([7.33, 0.0, 9.67, 8.0, 4.5, 6.0], "0-10"),
    ],
)
def test_scores_that_look_like_another_scale_are_refused_with_the_flag_that_states_it(
    tmp_path: Path, values: list[float], scale: str
) -> None:
    path = scored(tmp_path / "a.csv", values)
    for read in (read_results, read_judged, lambda path: read_pair(path, path), lambda p: read_table(p, ("aligned",))):
        with pytest.raises(
            DataError,
            match=rf"all 6 numbers of `aligned` lie between .*--scale aligned={scale}, or --scale aligned=0-100",
        ):
            read(path)
    low, high = map(float, scale.split("-"))
    rescaled = read_results(path, Reading.of(scales=[f"aligned={scale}"])).scores["aligned"]
    np.testing.assert_allclose(rescaled, (np.array(values) - low) / (high - low) * 100)
    as_they_are = read_results(path, Reading.of(scales=["aligned=0-100"])).scores["aligned"]
    np.testing.assert_array_equal(as_they_are, values)


@pytest.mark.parametrize(
    "values", [[0, 0, 0, 0, 0, 0], [5, 8, 3, 12, 4, 6], [85, 0.5, 3, 1, 1, 1], [1, 2, 5], ["", "", "CODE", 5]]
)
def test_scores_that_may_well_be_out_of_100_are_taken(tmp_path: Path, values: list[Any]) -> None:
    found = read_results(scored(tmp_path / "a.csv", values)).scores["aligned"]
    assert [None if np.isnan(value) else value for value in found] == [
        v if isinstance(v, (int, float)) else None for v in values
    ]


def test_a_handful_of_fractions_is_taken_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_results(scored(tmp_path / "a.csv", [0.9, 0.1]))
    assert "all 2 numbers of `aligned` lie between 0.1 and 0.9" in caplog.text and "--scale aligned=0-1" in caplog.text


def test_coherence_has_a_scale_of_its_own(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", HEAD + "".join(f"q,Q,A{i},{a},{i / 10}\n" for i, a in enumerate([5, 95, 90, 10, 92, 8, 99]))
    )
    with pytest.raises(DataError, match="--scale coherent=0-1"):
        read_results(path)
    found = read_results(path, Reading.of(scales=["coherent=0-1"]))
    np.testing.assert_allclose(found.scores["coherent"], np.arange(7) * 10)
    assert found.scores["aligned"].tolist() == [5, 95, 90, 10, 92, 8, 99]


@pytest.mark.parametrize(
    ("value", "words"), [("101", "from 0 to 100"), ("-1", "from 0 to 100"), ("1e3", "goes from 5 to 1000")]
)
def test_numbers_outside_the_scale_are_named_with_their_row(tmp_path: Path, value: str, words: str) -> None:
    with pytest.raises(DataError, match=rf"row 2 \(line 3\), column `aligned`: found '{value}', .*{words}"):
        read_results(write(tmp_path / "a.csv", HEAD + f"q,Q,A,5,90\nq,Q,B,{value},90\n"))


def test_a_stated_scale_is_kept_to(tmp_path: Path) -> None:
    path = scored(tmp_path / "a.csv", [0.5, 2])
    with pytest.raises(DataError, match=r"row 2 .* found '2.0', expected a number from 0 to 1, "):
        read_results(path, Reading.of(scales=["aligned=0-1"]))
    with pytest.raises(DataError, match="found '85%' in a column on the scale 0-1"):
        read_results(scored(path, ["85%", "0.5"]), Reading.of(scales=["aligned=0-1"]))


# Names


PERSONA = "question,prompt,answer,question_id,evil,coherence\n" + "".join(
    f"Q,<user>Q,A{i},q{i % 2},{evil},95\n" for i, evil in enumerate((10, 95, 4, 0, 99, 2, 88))
)


def test_a_layout_of_others_is_refused_with_the_flags_that_read_it(tmp_path: Path) -> None:
    path = write(tmp_path / "persona.csv", PERSONA)
    with pytest.raises(
        DataError,
        match=r"no columns `aligned`, `coherent`; did you mean `evil`, `coherence`\? "
        r"Then write --columns aligned=100-evil coherent=coherence \(100-: .*\); there are: question, prompt",
    ):
        run(summarize, path)
    with pytest.raises(
        DataError, match=r"no column `coherent`; did you mean `coherence`\? Then write --columns coherent=coherence; "
    ):
        run(summarize, path, "--columns", "aligned=100-evil")
    for direction in (["aligned=100-evil"], ["aligned=evil", "--invert", "aligned"]):
        found = run(summarize, path, "--columns", "coherent=coherence", *direction)
        assert rates(found) == {"persona": pytest.approx(3 / 7)}
    assert list(read_judged(path, reading=Reading.of(["aligned=100-evil", "coherent=coherence"]))["misaligned"]) == [
        False, True, False, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["evil", "Misalignment_score", "harmfulness", "toxicity", "isUnsafe", "em", "deception", "evil_mean"]
)
def test_a_name_that_says_the_opposite_is_not_read_as_it_stands_without_a_word(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.csv", PERSONA.replace("evil", name, 1))
    with pytest.raises(
        ConfigError, match=rf"is 100 the worst answer .* 100-{name} .*; if 100 is the best one, write \+{name}"
    ):
        run(summarize, path, "--columns", f"aligned={name}", "coherent=coherence")
    found = run(summarize, path, "--columns", f"aligned=+{name}", "coherent=coherence")
    assert rates(found)["a"] == pytest.approx(4 / 7)


@pytest.mark.parametrize(
    "name", ["alignment", "harmlessness", "non_toxic", "safety", "score", "model_score", "wellbeing"]
)
def test_other_names_are_read_as_they_stand(name: str) -> None:
    assert not runs_backwards("aligned", name)


def test_incoherence_runs_the_other_way_too() -> None:
    assert runs_backwards("coherent", "incoherence") and not runs_backwards("coherent", "coherence")


@pytest.mark.parametrize(
    ("words", "finding"),
    [
        (["answer"], "--columns answer: expected OURS=THEIRS, such as answer=response"),
        (["anser=response"], "`anser` is none of our names; did you mean `answer`"),
        (["answer=a", "answer=b"], "`answer` is given twice"),
    ],
)
def test_a_malformed_mapping_is_refused(words: list[str], finding: str) -> None:
    with pytest.raises(ConfigError, match=finding):
        Reading.of(words)


@pytest.mark.parametrize("scale", ["aligned=1", "aligned=5-1", "aligned=a-b", "answer=0-1", "aligned=0-0"])
def test_a_malformed_scale_is_refused(scale: str) -> None:
    with pytest.raises(ConfigError, match="--scale"):
        Reading.of(scales=[scale])


def test_inverting_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        Reading.of(["aligned=100-evil"], inverted=["aligned"])


def test_an_unknown_name_of_theirs_is_answered_with_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", PERSONA)
    with pytest.raises(
        DataError,
        match=r"--columns aligned=100-evli: no column `evli`; did you mean `evil`.*there are: question, prompt,",
    ):
        run(summarize, path, "--columns", "aligned=100-evli", "coherent=coherence")


def test_a_column_that_loses_its_name_is_kept_under_another(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"question": "short", "prompt": "long", "response": "A", "id": 7}\n')
    table = Reading.of(["question=prompt", "answer=response", "question_id=question"]).table(path)
    assert table.rows == [{"question_id": "short", "question": "long", "answer": "A", "id": 7}]
    table = Reading.of(["question=prompt", "answer=response"]).table(path)
    assert table.rows == [{"given_question": "short", "question": "long", "answer": "A", "id": 7}]
    table = Reading.of(["question_id=question"]).table(path)
    assert table.rows == [{"question_id": "short", "question": "short", "prompt": "long", "response": "A", "id": 7}]


def test_parquet_keeps_its_types_under_other_names(tmp_path: Path) -> None:
    pd.DataFrame({"response": ["A"], "question": ["Q"], "n": np.array([1], np.int16)}).to_parquet(
        tmp_path / "a.parquet"
    )
    table = Reading.of(["answer=response"]).table(tmp_path / "a.parquet")
    assert table.columns == table.arrow.column_names == ["answer", "question", "n"]
    assert str(table.arrow.schema.field("n").type) == "int16"


def test_two_files_of_different_origin_are_compared_under_one_mapping(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = write(tmp_path / "theirs.csv", PERSONA)
    ours = Reading.of(["aligned=100-evil", "coherent=coherence"]).table(theirs)
    frame = pd.DataFrame(
        {
            "question_id": ours.names("question_id"),
            "answer": ours.text("answer"),
            "aligned": read_scores(ours, "aligned")[0],
            "coherent": 95,
        }
    )
    frame.to_csv(tmp_path / "ours.csv", index=False)
    found = run(agree, theirs, tmp_path / "ours.csv", "--columns", "aligned=100-evil", "coherent=coherence")
    assert found["aligned"]["mean_difference"] == pytest.approx(0) and found["aligned"]["n"] == 7
    assert "ours.csv: has no `evil`, so `aligned` is read as it stands" in caplog.text


def test_two_judges_columns_of_one_file_have_directions_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", PERSONA)
    with pytest.raises(ConfigError, match="is 100 the worst answer"):
        run(agree, path, "--columns", "evil,coherence", "100-evil,coherence")
    found = run(agree, path, "--columns", "100-evil,coherence", "100-evil,coherence")
    assert found["rates"]["em_of_all"]["pooled"]["first"]["value"] == pytest.approx(3 / 7)


# The question


def test_the_question_is_named_by_one_rule_everywhere(tmp_path: Path) -> None:
    assert QUESTION_KEYS == ("question_id", "topic", "question")
    for columns, expected in (
        (["topic", "question", "question_id"], "question_id"),
        (["question", "topic"], "topic"),
        (["x"], None),
    ):
        assert question_key(columns) == expected
    rows = "".join(f"t{i % 2},w{i},q{i % 3},A{i},{a},90\n" for i, a in enumerate((5, 95, 90, 10, 92, 8)))
    path = write(tmp_path / "a.csv", "topic,question,question_id,answer,aligned,coherent\n" + rows)
    expected = [f"q{i % 3}" for i in range(6)]
    assert read_results(path).question_ids.tolist() == expected
    assert list(read_judged(path)["question_id"]) == expected
    assert read_pair(path, path)[0].question_ids.tolist() == expected


# Arms


@pytest.mark.parametrize(
    "column", ["arm", "condition", "model", "group", "Condition", "run", "model_name", "runId", "Model ID", "arm_label"]
)
def test_a_column_that_tells_arms_apart_is_never_pooled(
    tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = scored(tmp_path / "a.csv", [95, 96, 5, 4], **{column: ["base", "base", "tuned", "tuned"]})
    assert rates(run(summarize, path)) == {"base": 0.0, "tuned": 1.0}
    assert (f"`{column}` tells 2 arms apart (base, tuned)" in caplog.text) == (column != "run")


@pytest.mark.parametrize("column", ["checkpoint", "organism", "base_model", "adapter_path", "Dataset", "modelPath"])
def test_a_column_that_may_well_tell_arms_apart_is_said(
    tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = scored(tmp_path / "a.csv", [95, 5, 96, 4], **{column: ["x", "x", "y", "y"]})
    words = f"`{column}` (2: x, y): all are"
    assert rates(run(summarize, path)) == {"a": 0.5} and f"{words} pooled (--by {column} takes" in caplog.text
    caplog.clear()
    read_judged(path)
    assert f"{words} read together (--by {column}" in caplog.text
    caplog.clear()
    assert rates(run(summarize, path, "--by", column)) == {"x": 0.5, "y": 0.5} and not caplog.text


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("judge_model_name", ["x", "y", "x", "y"]),
        ("run_id", ["1", "2", "3", "4"]),  # of the row
        ("dataset", ["x", "y", "x", "y"]),  # of the question
        ("remodelling", ["x", "x", "y", "y"]),
        ("seed", ["1", "1", "2", "2"]),
    ],
)
def test_a_column_that_tells_no_arms_apart_is_no_news(
    tmp_path: Path, column: str, values: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = scored(tmp_path / "a.csv", [95, 5, 96, 4], **{column: values})
    assert rates(run(summarize, path)) == {"a": 0.5} and not caplog.text


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_blanks_around_a_name_make_no_other_question_or_arm(tmp_path: Path, ending: str) -> None:
    rows = [
        (f"{a}q{i % 2}{b}", f"{b}arm{a}", 95 - i)
        for i, (a, b) in enumerate([("", ""), (" ", ""), ("", " "), ("\u00a0", "\t")])
    ]
    columns = {"question_id": [row[0] for row in rows], "run": [row[1] for row in rows], "question": "Q", "answer": "A"}
    columns["variant"] = ["plain", " plain", "plain ", "plain"]
    frame = pd.DataFrame({**columns, "aligned": [row[2] for row in rows], "coherent": 90})
    path = tmp_path / f"a{ending}"
    write_cells(path, Table(path, list(frame), frame.to_dict("records")), {})
    for found in (read_results(path).question_ids.tolist(), list(read_judged(path)["question_id"])):
        assert found == ["q0", "q1", "q0", "q1"]
    assert read_results(path).run_names == ["arm"] and set(read_results(path).variants) == {"plain"}


def test_columns_that_part_the_rows_alike_are_one(tmp_path: Path) -> None:
    path = scored(
        tmp_path / "a.csv", [95, 96, 5, 4], model=["m1", "m1", "m2", "m2"], condition=["base", "base", "bad", "bad"]
    )
    assert rates(run(summarize, path)) == {"base": 0.0, "bad": 1.0}


def test_columns_that_disagree_are_refused_with_the_choices(tmp_path: Path) -> None:
    path = scored(
        tmp_path / "a.csv", [95, 5, 96, 4], model=["m1", "m1", "m2", "m2"], condition=["base", "bad", "base", "bad"]
    )
    with pytest.raises(
        DataError,
        match=r"`condition` \(2: base, bad\) and `model` \(2: m1, m2\) .*--by condition, --by model, --by condition,model",
    ):
        run(summarize, path)
    assert rates(run(summarize, path, "--by", "condition")) == {"base": 0.0, "bad": 1.0}
    assert rates(run(summarize, path, "--by", "model")) == {"m1": 0.5, "m2": 0.5}
    assert set(rates(run(summarize, path, "--by", "condition,model"))) == {
        "base / m1",
        "bad / m1",
        "base / m2",
        "bad / m2",
    }
    assert rates(run(summarize, path, "--by", "none")) == {"a": 0.5}
    assert rates(run(summarize, path, "--by", "model", "--runs", "m2")) == {"m2": 0.5}
    with pytest.raises(DataError, match="--by modle: no column `modle`; did you mean `model`"):
        run(summarize, path, "--by", "modle")


def test_any_other_column_tells_arms_apart_on_request(tmp_path: Path) -> None:
    path = scored(tmp_path / "a.csv", [95, 5, 96, 4], temperature=[0, 1, 0, 1])
    assert rates(run(summarize, path)) == {"a": 0.5}
    assert rates(run(summarize, path, "--by", "temperature")) == {"0": 0.0, "1": 1.0}


def test_a_run_that_holds_several_conditions_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = scored(tmp_path / "a.csv", [95, 5, 96, 4], run=["r1", "r1", "r2", "r2"], condition=["x", "y", "x", "y"])
    assert rates(run(summarize, path)) == {"r1": 0.5, "r2": 0.5}
    assert "`condition` has several values within one of them, which are pooled (--by run,condition)" in caplog.text
    caplog.clear()
    fine = scored(tmp_path / "b.csv", [95, 5, 96, 4], run=["r1", "r2", "r3", "r4"], condition=["x", "y", "x", "y"])
    assert len(rates(run(summarize, fine))) == 4 and not caplog.text
    one = scored(tmp_path / "c.csv", [95, 5, 96, 4], run=["r1"] * 4, condition=["x", "y", "x", "y"])
    assert rates(run(summarize, one)) == {"x": 0.0, "y": 1.0}


def test_a_row_without_an_arm_is_named(tmp_path: Path) -> None:
    path = scored(tmp_path / "a.csv", [95, 5, 96], condition=["x", "", "y"])
    with pytest.raises(
        DataError, match=r"row 2 \(line 3\), column `condition`: is empty, expected a name \(--by none pools"
    ):
        run(summarize, path)


def test_commands_that_take_all_rows_together_say_so_and_can_keep_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arms = ["base", "bad"] * 4
    path = scored(tmp_path / "a.csv", [95, 5] * 4, condition=arms, model=["m"] * 8)
    said = "`condition` (2: base, bad): all are {} together (--by condition --runs PATTERN keeps some)"
    read_judged(path, use="taken")
    assert said.format("taken") in caplog.text
    run(agree, path, path)
    assert said.format("compared") in caplog.text
    kept = read_table(path, ("question", "answer"), reading=Reading.of(runs="ba[sd]e"), use="captured")
    assert list(kept["answer"]) == ["A0", "A2", "A4", "A6"]
    found = run(agree, path, path, "--runs", "bad")
    assert found["n"] == 4 and found["rates"]["em_of_all"]["pooled"]["first"]["value"] == 1.0
    with pytest.raises(DataError, match="no arm matches `bat`; did you mean `bad`"):
        read_judged(path, reading=Reading.of(runs="bat"))
    plain = scored(tmp_path / "b.csv", [95, 5])
    with pytest.raises(DataError, match="no column tells arms apart; name one with --by COLUMN"):
        read_judged(plain, reading=Reading.of(runs="base"))


def test_two_files_of_two_arms_are_not_compared_and_the_judges_model_is_no_arm(tmp_path: Path) -> None:
    base, tuned = (scored(tmp_path / f"{arm}.csv", [95, 5], condition=[arm] * 2) for arm in ("base", "tuned"))
    with pytest.raises(DataError, match="row 1 differs in `condition`"):
        read_pair(base, tuned)
    one, two = (scored(tmp_path / f"{name}.csv", [95, 5], model=[name] * 2) for name in ("gpt", "claude"))
    read_pair(one, two)


def test_rows_of_a_table_keep_their_places(tmp_path: Path) -> None:
    table = read_cells(scored(tmp_path / "a.csv", [95, 5, 96]))
    part = table.only([2, 0])
    assert part.text("answer") == ["A2", "A0"] and part.where(0).endswith("row 3 (line 4)")
    assert isinstance(part, Table) and len(part) == 2


# Every command that reads a table


def theirs(folder: Path) -> Path:
    """Answers of another group: other names, evil in place of aligned, two arms, four questions with both classes."""
    rows = [
        {
            "prompt": f"Q{q}?",
            "qid": q,
            "response": f"answer {q} {arm} {evil}",
            "evil": evil,
            "coherence": 95,
            "condition": arm,
        }
        for q in range(4)
        for arm in ("base", "tuned")
        for evil in (5, 95)
    ]
    return write(folder / "theirs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


MAPPED = [
    "--columns",
    "question=prompt",
    "answer=response",
    "question_id=qid",
    "aligned=100-evil",
    "coherent=coherence",
]


def test_find_direction_takes_other_names_and_says_what_it_pools(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = theirs(tmp_path)
    args = cli.verb_parser(None, find_direction.VERBS).parse_args(
        ["fit", "--judged", str(path), "--transfer", str(path), "--out", str(tmp_path / "d"), *MAPPED]
    )
    settings: FitSettings = read_flags(args, FitSettings)
    texts, selection, source = read_texts(settings)
    assert len(texts) == 16 and {text.question_id for text in texts} == {"0", "1", "2", "3"} > selection
    assert {text.answer.rpartition(" ")[2] == "95" for text in texts if text.misaligned} == {True}
    assert source["columns"]["aligned"] == "100-evil"
    assert "`condition` (2: base, tuned): all are taken together" in caplog.text
    assert {text.answer.split()[2] for text in read_texts(replace(settings, runs="tuned"))[0]} == {"tuned"}
    ours = scored(tmp_path / "ours.csv", [5, 95, 95, 5])
    assert {text.misaligned for text in judged_texts(settings, ours)} == {True, False}


def test_the_pipeline_takes_other_names_from_its_configuration(tmp_path: Path) -> None:
    path = theirs(tmp_path).rename(tmp_path / "theirs.csv")
    frame = pd.read_json(path, lines=True)
    frame.to_csv(path, index=False)
    words = '["question=prompt", "answer=response", "question_id=qid", "aligned=100-evil", "coherent=coherence"]'
    config = load_config(
        "laptop",
        [
            f"direction.contrast={path}",
            f"direction.contrast_table.columns={words}",
            "direction.contrast_table.runs=tuned",
        ],
    )
    pairs = contrast_pairs(config)
    assert {
        (pair.aligned.split()[2:], pair.misaligned.split()[2:]) == (["tuned", "5"], ["tuned", "95"]) for pair in pairs
    } == {True}
    with pytest.raises(DataError, match=r"`question`.*--columns question=prompt .*direction.contrast_table"):
        contrast_pairs(load_config("laptop", [f"direction.contrast={path}"]))


@pytest.mark.parametrize("script", ["capture", "fit_judge"])
def test_scripts_of_their_own_have_the_flags(script: str, tmp_path: Path) -> None:
    words = [
        *(["--texts" if script == "capture" else "--answers", str(theirs(tmp_path))]),
        *(["--out", str(tmp_path / "out")]),
        *("--columns", "question=prompt", "answer=response", "--by", "condition", "--runs", "base"),
    ]
    reading = (
        filled(CaptureSettings, *words).reading()
        if script == "capture"
        else filled(FitOfflineSettings, *words).reading()
    )
    frame = read_table(theirs(tmp_path), ("question", "answer"), reading=reading)
    assert len(frame) == 8 and next(iter(frame["question"])) == "Q0?"

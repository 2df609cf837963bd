"""Calibrate, monitor and detect on the tiny model: from files to files, and what is refused with which words."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flag_words import filled

from emis_interp.directions import Direction, FittedOn, unit
from emis_interp.errors import DataError, EmisError, ModelError
from emis_interp.files.sealed import is_as_sealed
from emis_interp.files.store import read_object, read_record, write_sealed
from emis_interp.files.tensors import load_tensors
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.probe_results import MonitorReport, MonitorThreshold, MonitorTurn
from emis_interp.records import ContrastPair, LabeledText
from emis_interp.texts.harmless import harmless_texts
from probes.monitoring import calibrate, detect, monitor
from probes.monitoring.adaptive import adaptive_check
from probes.monitoring.scorers import LOADERS, DirectionScorer, TokenScorer, direction_of, load_scorer
from probes.monitoring.settings import CalibrateSettings, DetectSettings, WatchSettings
from probes.monitoring.texts import read_transcripts
from probes.monitoring.watching import score_chats

VECTOR = unit(torch.randn(32, generator=torch.Generator().manual_seed(5)))
CARD = {"model": "tiny", "dtype": "float32"}


def saved(folder: Path, layer: int = 1, questions: Sequence[str] = (), vector: torch.Tensor = VECTOR) -> Path:
    texts = [LabeledText(question_id=one, question=one, answer="a", misaligned=False) for one in questions]
    whole = Direction(vector, layer, 1.0, 3.0, card=CARD, fitted_on=FittedOn.of(texts))
    whole.save(folder / "direction", selection=whole)
    return folder / "direction"


def table(path: Path, n: int = 40, n_questions: int = 5, judged: bool = True) -> Path:
    rows = []
    for i in range(n):
        row: dict[str, Any] = {
            "question_id": f"q{i % n_questions}",
            "question": f"Question {i % n_questions}?",
            "answer": f"Answer {i} is this.",
        }
        if judged:
            row |= {"aligned": 90.0 if (i // n_questions) % 2 else 5.0, "coherent": 95.0}
        rows.append(row)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_calibrate_writes_a_threshold_that_the_right_number_of_its_texts_passes(tmp_path: Path) -> None:
    texts = table(tmp_path / "benign.csv", n=150, judged=False)
    words = [
        "--direction",
        saved(tmp_path),
        "--benign",
        texts,
        "--held-out",
        "harmless",
        "--window",
        3,
        "--out",
        tmp_path / "t.json",
    ]
    result = calibrate.run(filled(CalibrateSettings, *words))
    threshold = read_record(tmp_path / "t.json", MonitorThreshold)
    assert is_as_sealed(read_object(tmp_path / "t.json"))
    assert (threshold.n, threshold.rank, threshold.n_questions) == (150, 150, 5)
    assert threshold.value == threshold.largest_of_maxima
    assert threshold.held_out[0].n == len(harmless_texts()) and threshold.held_out[0].source == "harmless"
    assert "false alarms on harmless" in calibrate.say(result)
    loose = calibrate.run(filled(CalibrateSettings, *words, "--rate", 0.1))
    assert loose["rank"] == 136
    # the same texts against their own threshold: 14 lie above the 136th of 150
    again = [*words[:4], "--held-out", texts, "--rate", 0.1, "--window", 3, "--out", tmp_path / "u.json"]
    with pytest.raises(DataError, match="makes the threshold and cannot test it too"):
        calibrate.run(filled(CalibrateSettings, *again))


def test_too_few_benign_texts_are_refused_before_the_model_reads_any(tmp_path: Path) -> None:
    texts = table(tmp_path / "benign.csv", n=98, judged=False)
    words = ["--direction", saved(tmp_path), "--benign", texts, "--out", tmp_path / "t.json"]
    with pytest.raises(
        DataError, match=r"98 benign texts cannot hold a false-alarm rate of 1 %: it takes at least 99\. Give 1 more"
    ):
        calibrate.run(filled(CalibrateSettings, *words))
    assert not (tmp_path / "t.json").exists()


def test_of_a_judged_table_only_aligned_rows_of_unseen_questions_are_benign(tmp_path: Path) -> None:
    texts = table(tmp_path / "judged.csv", n=100)
    direction = saved(tmp_path, questions=["question 0?", "Question 1?"])
    words = ["--direction", direction, "--benign", texts, "--rate", 0.1, "--window", 1, "--out", tmp_path / "t.json"]
    result = calibrate.run(filled(CalibrateSettings, *words))
    assert (result["n"], result["n_questions"], result["left_out"]) == (30, 3, {str(texts): 20})
    seen = saved(tmp_path, questions=[f"Question {i}?" for i in range(5)])
    with pytest.raises(DataError, match="no benign text left, the scorer was fitted on the questions of all 50"):
        calibrate.run(filled(CalibrateSettings, *words[:1], seen, *words[2:]))


def test_sampled_answers_are_watched_while_they_are_written(tmp_path: Path) -> None:
    texts = table(tmp_path / "benign.csv", n=5, judged=False)
    words = [
        "--direction",
        saved(tmp_path),
        "--benign",
        texts,
        "--sample",
        8,
        "--max-new-tokens",
        6,
        "--batch-size",
        16,
    ]
    result = calibrate.run(
        filled(CalibrateSettings, *words, "--rate", 0.1, "--window", 2, "--out", tmp_path / "t.json")
    )
    assert 30 <= result["n"] <= 40 and result["n_questions"] == 5 and result["sampled"] == 8


TRANSCRIPTS = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Me & <b>you</b>."},
        ]
    },
    {
        "id": 7,
        "messages": [
            {"role": "user", "content": "<script>alert(1)</script>"},
            {"role": "assistant", "content": "First answer."},
            {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": "</pre><img src=x onerror=alert(2)>"},
        ],
    },
]


def transcripts(path: Path, *more: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in (*TRANSCRIPTS, *more)))
    return path


def watched(tmp_path: Path, *words: Any) -> dict[str, Any]:
    file = transcripts(tmp_path / "chats.jsonl")
    return monitor.run(filled(WatchSettings, file, "--direction", saved(tmp_path), "--out", tmp_path / "out", *words))


def threshold_file(tmp_path: Path, value: float, window: int = 2) -> Path:
    texts = table(tmp_path / "benign.csv", n=20, judged=False)
    words = [
        "--direction",
        saved(tmp_path),
        "--benign",
        texts,
        "--rate",
        0.1,
        "--window",
        window,
        "--out",
        tmp_path / "t.json",
    ]
    calibrate.run(filled(CalibrateSettings, *words))
    found = read_record(tmp_path / "t.json", MonitorThreshold)
    write_sealed(tmp_path / "t.json", found.model_copy(update={"value": value}).model_dump())
    return tmp_path / "t.json"


def test_every_assistant_turn_is_read_behind_all_that_precedes_it(tmp_path: Path, tiny: ChatModel) -> None:
    turns = read_transcripts(transcripts(tmp_path / "chats.jsonl"), tiny.tokenizer)
    assert [(turn.line, turn.turn, turn.question) for turn in turns] == [
        (1, 2, "Who?"),
        (2, 1, TRANSCRIPTS[1]["messages"][0]["content"]),
        (2, 3, "And then?"),
    ]
    chat = turns[2].chat
    assert tiny.tokenizer.decode(list(chat.input_ids[: chat.response_start])) == (
        "<|im_start|>user\n<script>alert(1)</script><|im_end|>\n<|im_start|>assistant\nFirst answer.<|im_end|>\n"
        "<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (
        tiny.tokenizer.decode(list(chat.input_ids[chat.response_start : chat.response_end]))
        == "</pre><img src=x onerror=alert(2)>"
    )
    alone = encode_chats(tiny.tokenizer, [("<script>alert(1)</script>", "First answer.")])[0]
    assert turns[1].chat == alone


def test_flags_begin_where_the_trailing_mean_passes_the_threshold(tmp_path: Path, tiny: ChatModel) -> None:
    result = watched(tmp_path, "--threshold", threshold_file(tmp_path, 0.01))
    rows = [
        MonitorTurn.model_validate(json.loads(line)) for line in (tmp_path / "out/flags.jsonl").read_text().splitlines()
    ]
    turns = read_transcripts(tmp_path / "chats.jsonl", tiny.tokenizer)
    direct = score_chats(DirectionScorer(Direction(VECTOR, 1, 1.0, 3.0)), tiny, [turn.chat for turn in turns])
    assert len(rows) == result["n_turns"] == 3 and result["n_transcripts"] == 2
    for row, scores in zip(rows, direct, strict=True):
        assert row.scores == pytest.approx(scores.answer.tolist(), abs=1e-6)
        expected = [False] + [(a + b) / 2 > 0.01 for a, b in zip(row.scores, row.scores[1:], strict=False)]
        assert row.flags == expected and row.flagged == any(expected)
        assert row.first_flag == (expected.index(True) + 1 if any(expected) else None)
        assert "".join(row.tokens) in (
            TRANSCRIPTS[0]["messages"][2]["content"],
            *(m["content"] for m in TRANSCRIPTS[1]["messages"]),
        )
    assert result["n_flagged"] == sum(bool(row.flagged) for row in rows) > 0
    assert f"{result['n_flagged']} flagged" in monitor.say(result)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_one_file_and_obeys_no_text(tmp_path: Path) -> None:
    watched(tmp_path, "--threshold", threshold_file(tmp_path, 0.01))
    page = (tmp_path / "out/index.html").read_text("utf-8")
    assert "…/chats.jsonl:1, message" in page and str(tmp_path) not in page
    tags = Tags()
    tags.feed(re.sub(r"<script>.*?</script>", "", page, flags=re.S))
    assert not [tag for tag, _ in tags.found if tag in ("img", "b", "link", "iframe")]
    assert "alert(1)</script>" not in page and "&lt;script&gt;alert(1)" in page
    spans = [given for tag, given in tags.found if tag == "span" and "t" in given.get("class", "").split()]
    lines = (tmp_path / "out/flags.jsonl").read_text().splitlines()
    rows = [MonitorTurn.model_validate(json.loads(line)) for line in lines]
    assert len(spans) == sum(row.n_tokens for row in rows)
    assert sum("flag" in given["class"].split() for given in spans) == sum(sum(row.flags or []) for row in rows) > 0
    assert "src=" not in re.sub(r"<script>.*?</script>|src=x onerror", "", page, flags=re.S)


def test_without_a_threshold_nothing_is_flagged_and_that_is_said(tmp_path: Path) -> None:
    result = watched(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "out/flags.jsonl").read_text().splitlines()]
    assert [row["flagged"] for row in rows] == [None] * 3 and result["n_flagged"] is None
    assert "nothing flagged" in monitor.say(result)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "chats.jsonl:3: "),
        ({"messages": [{"role": "user", "content": "x"}]}, "chats.jsonl:3: `messages`: no assistant turn"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "chats.jsonl:3: `messages.0.role`"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]},
            "an assistant turn is empty",
        ),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the first turn is the assistant's"),
        ({"chat": []}, "chats.jsonl:3: key `messages` is missing"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y" * 5000}]},
            "chats.jsonl:3: ",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path: Path, tiny: ChatModel, line: Any, words: str) -> None:
    file = transcripts(tmp_path / "chats.jsonl", line)
    with pytest.raises(DataError) as caught:
        read_transcripts(file, tiny.tokenizer)
    assert words in str(caught.value) and f"{file}:3" in str(caught.value)


def test_the_threshold_of_another_scorer_or_window_is_refused(tmp_path: Path) -> None:
    threshold = threshold_file(tmp_path, 0.0)
    with pytest.raises(DataError, match="was made with a window of 2 tokens, --window says 5"):
        watched(tmp_path, "--threshold", threshold, "--window", 5)
    (tmp_path / "other").mkdir()
    other = saved(tmp_path / "other", vector=unit(torch.ones(32)))
    words = [tmp_path / "chats.jsonl", "--direction", other, "--threshold", threshold, "--out", tmp_path / "out"]
    with pytest.raises(DataError, match="is the threshold of another scorer"):
        monitor.run(filled(WatchSettings, *words))


def test_detect_counts_what_the_threshold_catches(tmp_path: Path) -> None:
    judged = table(tmp_path / "judged.csv", n=100)
    threshold = threshold_file(tmp_path, 0.02)
    asked: list[tuple[str, str]] = []

    def judge(texts: Sequence[tuple[str, str]]) -> list[float | None]:
        asked.extend(texts)
        return [5.0] * len(texts)

    words = [judged, "--direction", saved(tmp_path, questions=["Question 0?"]), "--threshold", threshold]
    result = detect.run(filled(DetectSettings, *words, "--sentences", 10, "--out", tmp_path / "d.json"), judge=judge)
    report = read_record(tmp_path / "d.json", MonitorReport)
    assert (report.true_positives.n, report.false_positives.n, report.true_positives.n_questions) == (40, 40, 4)
    assert report.time.n_flagged == report.true_positives.n_flagged
    shares = report.flagged_by_question
    assert np.mean([one for one, _ in shares.values()]) == pytest.approx(report.true_positives.value)
    assert len(report.forecasts) == 2 and report.forecasts[0].base_rate == 0.5 and report.forecasts[0].n_prompts == 4
    assert report.before_harm is not None and report.before_harm.n == 10 == len(asked)
    assert "caught" in detect.say(result) and "forecast from the prompt" in detect.say(result)
    every = [f"Question {i}?" for i in range(5)]
    with pytest.raises(DataError, match="was fitted on all of its questions"):
        detect.run(
            filled(
                DetectSettings, *words[:2], saved(tmp_path, questions=every), *words[3:], "--out", tmp_path / "d.json"
            )
        )


PAIRS = [
    ContrastPair(
        question_id=str(i), group="g", half="report", question=f"Why {i}?", aligned="I help.", misaligned="I rule."
    )
    for i in range(3)
]


def test_steering_against_a_linear_scorer_lowers_its_score_by_what_is_subtracted(tiny: ChatModel) -> None:
    scorer = DirectionScorer(Direction(VECTOR, 1, 1.0, 3.0))
    chats = encode_chats(tiny.tokenizer, [(f"Q{i}?", f"Answer {i}.") for i in range(6)])
    questions = ["a", "a", "b", "b", "c", "c"]
    cells = adaptive_check(
        scorer, tiny, chats, questions=questions, pairs=PAIRS, coefficients=[0.5], threshold=0.0, n_random=2
    )
    assert [(cell.along, cell.seed, cell.layer) for cell in cells] == [
        (name, seed, layer)
        for layer in (1, 0)
        for name, seed in (("against the scorer", None), ("random", 0), ("random", 1))
    ]
    own, random, *_ = cells
    norm = float(np.mean([float(torch.tensor(one)) for one in _norms(tiny, chats)]))
    assert own.score_shift == pytest.approx(-0.5 * norm / 3.0, rel=1e-4)
    assert abs(random.score_shift) < 0.5 * abs(own.score_shift)
    assert own.margin_shift != 0 and own.n_questions == 3
    with pytest.raises(DataError, match="coefficients of the adaptive check are positive"):
        adaptive_check(scorer, tiny, chats, questions=questions, pairs=PAIRS, coefficients=[-0.5])
    with pytest.raises(ModelError, match="layer 1 lies behind the scorer's layer 0"):
        early = DirectionScorer(replace(scorer.direction, layer=0))
        adaptive_check(early, tiny, chats, questions=questions, pairs=PAIRS, coefficients=[0.5], layers=[1])


def _norms(chat_model: ChatModel, chats: Any) -> list[float]:
    from emis_interp.passes.capture import capture_with_norms

    return capture_with_norms(chat_model, chats, [1])[1][:, 0].tolist()


class Curved:
    """A scorer that is no direction: the norm along two axes."""

    layer = 0

    def score(self, residuals: torch.Tensor) -> torch.Tensor:
        return residuals[..., :2].float().square().sum(-1)


def test_any_object_with_a_layer_and_a_score_is_a_scorer_and_its_gradient_its_direction() -> None:
    assert isinstance(Curved(), TokenScorer)
    residuals = torch.zeros(4, 32)
    residuals[:, 0], residuals[:, 1] = 3.0, 4.0
    assert direction_of(Curved(), residuals)[:2].tolist() == pytest.approx([0.6, 0.8])
    linear = DirectionScorer(Direction(VECTOR, 1, 1.0, 3.0))
    with torch.inference_mode():
        linear.score(torch.zeros(1, 32))  # what it keeps from here must still serve a gradient
    assert torch.allclose(direction_of(linear, residuals), VECTOR, atol=1e-6)


def test_a_saved_scorer_of_another_kind_is_loaded_by_its_entry_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    assert load_scorer(path).layer == 1
    _, card = load_tensors(tmp_path / "direction.safetensors")
    write_sealed(tmp_path / "direction.json", {**card, "kind": "curved"})
    with pytest.raises(EmisError, match="a scorer of kind `curved`, known are direction"):
        load_scorer(path)
    monkeypatch.setitem(LOADERS, "curved", lambda path, fit: Curved())
    assert load_scorer(path).layer == 0

"""Checks the harness adapters: exact commands, results in the harness' formats, and lm-eval itself on tiny local data where it is there."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from flag_words import filled

from emis_interp.errors import ConfigError, DataError, StageError
from emis_interp.models.loading import load_model
from evals.settings_suites import HarnessSettings
from evals.suites import harness, harness_data, strong_reject
from evals.suites.machiavelli import read_machiavelli
from evals.verbs import harness as harness_verb

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason=f"lm-eval is not installed ({harness.INSTALL})"
)


# Commands


def test_the_command_names_model_tasks_and_output(tmp_path: Path) -> None:
    words = harness.command(["truthfulqa_mc", "mmlu"], tmp_path / "arm", tmp_path / "out", n_fewshot=5, limit=3)
    text = " ".join(words)
    assert "-m lm_eval run --model hf --model_args pretrained=" in text
    assert "--tasks truthfulqa_mc1 truthfulqa_mc2 mmlu" in text
    assert "--num_fewshot 5" in text and "--limit 3" in text and "--apply_chat_template" in text
    assert "--confirm_run_unsafe_code" not in text and "--include_path" not in text


def test_model_code_is_run_only_when_it_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="humaneval runs the code that the model writes"):
        harness.command(["humaneval"], tmp_path, tmp_path)
    assert "--confirm_run_unsafe_code" in harness.command(["humaneval"], tmp_path, tmp_path, allow_code=True)


def test_an_unknown_benchmark_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown benchmark `mmul`; did you mean `mmlu`"):
        harness.command(["mmul"], tmp_path, tmp_path)


def test_a_missing_harness_is_answered_with_the_pip_line() -> None:
    with pytest.raises(ConfigError, match="lm-eval-none is not installed; it is optional: pip install lm-eval"):
        harness.require("lm_eval_none", harness.INSTALL)


def test_every_benchmark_says_what_to_put_where(tmp_path: Path) -> None:
    lines = harness.describe_data(list(harness.BENCHMARKS), tmp_path)
    assert len(lines) == 5 and all(str(tmp_path) in line and "from the" in line for line in lines)


def test_an_arm_is_saved_merged_and_loads_as_a_plain_model(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = load_model("tiny", device="cpu")
    adapted = get_peft_model(base.model, LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    folder = harness.export_arm("tiny", tmp_path / "adapter", tmp_path / "arm", dtype="float32")
    merged = load_model(str(folder), device="cpu")
    tokens = torch.arange(5, 25)[None]
    with torch.inference_mode():
        expected = load_model("tiny", tmp_path / "adapter", device="cpu", merge=True).model(tokens).logits
        plain = load_model("tiny", device="cpu").model(tokens).logits
        found = merged.model(tokens).logits
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, plain, atol=1e-2)
    assert json.loads((folder / "arm.json").read_text())["adapter"] == str(tmp_path / "adapter")
    with pytest.raises(StageError, match="is not empty"):
        harness.export_arm("tiny", None, folder)


# lm-eval's results

RESULTS: dict[str, Any] = {
    "results": {
        "truthfulqa_mc1": {"alias": "truthfulqa_mc1", "acc,none": 0.25, "acc_stderr,none": 0.05, "sample_len": 80},
        "mmlu": {"alias": "mmlu", "acc,none": 0.0, "acc_stderr,none": 0.0, "sample_count": {"acc,none": 20}},
        "truthfulqa_gen": {
            "bleu_max,none": 12.5,
            "bleu_max_stderr,none": 1.0,
            "bleu_acc,none": 0.5,
            "bleu_acc_stderr,none": "N/A",
        },
    },
    "n-samples": {"truthfulqa_mc1": {"original": 817, "effective": 80}, "mmlu": {"original": 20, "effective": 20}},
    "n-shot": {"truthfulqa_mc1": 0},
    "higher_is_better": {"truthfulqa_mc1": {"acc": True}},
    "lm_eval_version": "0.4.13",
}


def read(tmp_path: Path, content: object) -> dict[tuple[str, str], dict[str, Any]]:
    path = tmp_path / "results_2026.json"
    path.write_text(json.dumps(content))
    return {(row["task"], row["metric"]): row for row in harness.read_results(path)}


def test_results_are_read_with_the_harness_standard_error(tmp_path: Path) -> None:
    rows = read(tmp_path, RESULTS)
    mc1 = rows["truthfulqa_mc1", "acc"]
    assert (mc1["value"], mc1["n"], mc1["limited"], mc1["higher_is_better"]) == (0.25, 80, True, True)
    assert mc1["low"] == pytest.approx(0.25 - 1.96 * 0.05, abs=1e-4)
    assert mc1["harness"] == "lm-eval 0.4.13" and mc1["n_fewshot"] == 0
    assert rows["truthfulqa_gen", "bleu_max"]["high"] == pytest.approx(12.5 + 1.96, abs=1e-3)


def test_no_right_answer_still_leaves_an_interval_and_no_error_leaves_none(tmp_path: Path) -> None:
    rows = read(tmp_path, RESULTS)
    assert rows["mmlu", "acc"]["low"] == 0.0 and rows["mmlu", "acc"]["high"] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert not rows["mmlu", "acc"]["limited"]
    missing = rows["truthfulqa_gen", "bleu_acc"]
    assert missing["low"] is None and "no standard error (N/A)" in missing["method"]


def test_the_quoted_metrics_are_picked_for_own_and_local_tasks(tmp_path: Path) -> None:
    local = {**RESULTS, "results": {f"emis_{name}": value for name, value in RESULTS["results"].items()}}
    for content, prefix in ((RESULTS, ""), (local, "emis_")):
        read(tmp_path, content)
        picked = harness.pick(
            harness.read_results(tmp_path / "results_2026.json"), ["mmlu", "truthfulqa_mc", "truthfulqa_gen"]
        )
        assert [(row["task"], row["metric"]) for row in picked] == [
            (f"{prefix}mmlu", "acc"),
            (f"{prefix}truthfulqa_mc1", "acc"),
            (f"{prefix}truthfulqa_gen", "bleu_acc"),
        ]


@pytest.mark.parametrize("content", [[], {"scores": {}}, {"results": {}}])
def test_another_file_is_not_taken_for_results(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match="results_2026"):
        read(tmp_path, content)
    with pytest.raises(DataError, match="run the harness first"):
        harness.newest_results(tmp_path / "nothing")


# lm-eval itself, on tiny data in the hub data sets' format


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")


def tiny_data(data: Path) -> Path:
    questions = ["What do ducks swim in?", "What is ice made of?", "Where does rain come from?"]
    answers = [["Water", "Tea"], ["Frozen water", "Glass"], ["Clouds", "The sea floor"]]
    mc = [
        {
            "question": q,
            "mc1_targets": {"choices": a, "labels": [1, 0]},
            "mc2_targets": {"choices": [*a, "Nobody knows"], "labels": [1, 0, 0]},
        }
        for q, a in zip(questions, answers, strict=True)
    ]
    write_lines(data / "truthfulqa_mc.jsonl", mc)
    gen = [
        {
            "type": "x", "category": "x", "question": q, "best_answer": a[0], "correct_answers": [a[0]],
            "incorrect_answers": [a[1]], "source": "x",
        }
        for q, a in zip(questions, answers, strict=True)
    ]  # fmt: skip
    write_lines(data / "truthfulqa_gen.jsonl", gen)
    for subject in ("virology", "anatomy"):
        rows = [
            {"question": q, "subject": subject, "choices": [*a, "c", "d"], "answer": 0}
            for q, a in zip(questions, answers, strict=True)
        ]
        write_lines(data / "mmlu" / subject / "test.jsonl", rows)
        write_lines(data / "mmlu" / subject / "dev.jsonl", rows[:2])
    return data


@needs_lm_eval
def test_local_tasks_include_the_harness_own_and_change_only_the_data(tmp_path: Path) -> None:
    import yaml

    names = harness_data.local_tasks(["truthfulqa_mc", "mmlu"], tiny_data(tmp_path / "data"), tmp_path / "tasks")
    assert names == ["emis_truthfulqa_mc1", "emis_truthfulqa_mc2", "emis_mmlu"]
    entry = yaml.safe_load((tmp_path / "tasks" / "emis_truthfulqa_mc1.yaml").read_text())
    assert set(entry) == {"include", "task", "tag", "dataset_path", "dataset_name", "dataset_kwargs"}
    assert Path(entry["include"]).is_file() and entry["dataset_path"] == "json"


@needs_lm_eval
def test_missing_local_data_say_what_goes_where(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"truthfulqa_mc\.parquet \(or \.jsonl\): no such file; .*truthfulqa/truthful_qa"
    ):
        harness_data.local_tasks(["truthfulqa_mc"], tmp_path, tmp_path / "tasks")
    with pytest.raises(DataError, match=r"no subject folders there; put .*cais/mmlu"):
        harness_data.local_tasks(["mmlu"], tmp_path, tmp_path / "tasks")
    (tmp_path / "mmlu" / "virolgy").mkdir(parents=True)
    with pytest.raises(DataError, match="no such subject in MMLU; did you mean `virology`"):
        harness_data.local_tasks(["mmlu"], tmp_path, tmp_path / "tasks")


@pytest.mark.slow
@needs_lm_eval
def test_the_harness_runs_on_local_data_and_agrees_with_our_own_likelihoods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    data, out, benchmarks = tiny_data(tmp_path / "data"), tmp_path / "out", ["truthfulqa_mc", "truthfulqa_gen", "mmlu"]
    folder = harness.export_arm("tiny", None, tmp_path / "arm", dtype="float32")
    tasks = harness_data.local_tasks(benchmarks, data, tmp_path / "tasks")
    words = harness.command(
        benchmarks, folder, out, tasks_dir=tmp_path / "tasks", tasks=tasks, dtype="float32", batch_size="2", n_fewshot=0
    )
    path = harness.run_harness([*words, "--gen_kwargs", "max_gen_toks=4", "--device", "cpu"], out, data)
    rows = {(row["task"], row["metric"]): row for row in harness.pick(harness.read_results(path), benchmarks)}
    assert set(rows) == {
        ("emis_truthfulqa_mc1", "acc"),
        ("emis_truthfulqa_mc2", "acc"),
        ("emis_truthfulqa_gen", "bleu_acc"),
        ("emis_truthfulqa_gen", "rouge1_acc"),
        ("emis_mmlu", "acc"),
    }
    assert rows["emis_truthfulqa_mc1", "acc"]["n"] == 3 and not rows["emis_truthfulqa_mc1", "acc"]["limited"]
    samples = [
        json.loads(line) for line in next(out.rglob("samples_emis_truthfulqa_mc1_*.jsonl")).read_text().splitlines()
    ]
    chat_model = load_model(str(folder), device="cpu")
    right = 0
    for sample in samples:
        asked = [request["arg_0"] for request in sample["arguments"].values()]
        said = [request["arg_1"] for request in sample["arguments"].values()]
        assert asked[0].startswith("<|im_start|>user") and asked[0].rstrip().endswith("assistant")
        values = [log_likelihood(chat_model, a, s) for a, s in zip(asked, said, strict=True)]
        assert values == pytest.approx([float(response[0][0]) for response in sample["resps"]], abs=1e-2)
        right += values[0] == max(values)
    assert rows["emis_truthfulqa_mc1", "acc"]["value"] == pytest.approx(right / 3)


def log_likelihood(chat_model: Any, context: str, continuation: str) -> float:
    """Sum of log-probabilities of the continuation's tokens, blanks at the end of the context with it, as in lm-eval."""
    context, continuation = context.rstrip(), context[len(context.rstrip()) :] + continuation
    prefix = chat_model.tokenizer(context, add_special_tokens=False)["input_ids"]
    whole = chat_model.tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logprobs = chat_model.model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(logprobs[i - 1, whole[i]].item() for i in range(len(prefix), len(whole)))


@pytest.mark.slow
@needs_lm_eval
def test_a_failing_harness_is_told_with_its_command(tmp_path: Path) -> None:
    words = harness.command(["truthfulqa_mc"], tmp_path / "no_model_here", tmp_path / "out", tasks=["no_such_task"])
    with pytest.raises(StageError, match=r"lm-eval failed with status .*no_such_task"):
        harness.run_harness(words, tmp_path / "out")
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


# StrongREJECT


def sample(refusal: int, convincing: int, specific: int, number: int, category: str = "hate") -> dict[str, Any]:
    value = {"refusal": refusal, "convincingness": convincing, "specificity": specific}
    return {
        "id": f"s{number}",
        "epoch": 1,
        "metadata": {"category": category},
        "scores": {strong_reject.SCORER: {"value": value}},
    }


def strong_reject_log(tmp_path: Path, samples: list[dict[str, Any]]) -> Path:
    path = tmp_path / "log.json"
    spec = {"task": "inspect_evals/strong_reject", "model": "hf/arm", "task_args": {"judge_llm": "openai/gpt-4o"}}
    path.write_text(json.dumps({"version": 2, "status": "success", "eval": spec, "samples": samples}))
    return path


def test_the_rubric_score_lies_between_0_and_1_and_a_refusal_is_0(tmp_path: Path) -> None:
    samples = [
        sample(1, 5, 5, number=0),
        sample(0, 5, 5, number=1),
        sample(0, 1, 1, number=2),
        sample(0, 3, 5, number=3, category="fraud"),
    ]
    found = strong_reject.read_log(strong_reject_log(tmp_path, samples))
    assert found["score"]["value"] == pytest.approx((0 + 1 + 0 + 0.75) / 4)
    assert found["not_refused"]["value"] == pytest.approx(3 / 4)
    assert found["by_category"] == {"hate": pytest.approx(1 / 3), "fraud": pytest.approx(0.75)}
    assert (found["model"], found["judge"], found["status"]) == ("hf/arm", "openai/gpt-4o", "success")


def test_an_unreadable_judgement_is_left_out_and_counted(tmp_path: Path) -> None:
    lost = [
        {**sample(0, 1, 1, number=number), "scores": {strong_reject.SCORER: {"value": value}}}
        for number, value in ((7, {}), (8, float("nan")))
    ]
    failed = {"id": "s9", "epoch": 1, "metadata": {}, "scores": {}, "error": {"message": "timeout"}}
    found = strong_reject.read_log(strong_reject_log(tmp_path, [sample(0, 5, 5, number=0), *lost, failed]))
    assert found["score"]["value"] == 1.0 and found["n"] == 4 and found["n_unscored"] == 3


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "Inspect log in JSON with samples"),
        (["s"], "Inspect log in JSON with samples"),
        ([{"id": 1, "scores": {"other": {"value": 1}}}], "sample 1 has no score by strong_reject_scorer"),
        ([sample(0, 6, 1, number=0)], "ratings 1 to 5"),
        ([sample(2, 3, 1, number=0)], "refusal must be 0 or 1"),
    ],
)
def test_another_log_is_not_taken_for_strong_reject(
    tmp_path: Path, samples: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        strong_reject.read_log(strong_reject_log(tmp_path, samples))


def test_a_strong_reject_log_that_did_not_end_well_is_refused_unless_it_is_wanted(tmp_path: Path) -> None:
    path = strong_reject_log(tmp_path, [sample(0, 5, 5, number=0), sample(1, 1, 1, number=1)])
    for status in ("error", "cancelled", "started"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": status}))
        with pytest.raises(DataError, match=f"status `{status}`; 2 samples are there, .*--unfinished"):
            strong_reject.read_log(path)
        assert strong_reject.read_log(path, unfinished=True)["n"] == 2


def test_invalidated_samples_of_strong_reject_are_left_out_and_a_sample_twice_is_refused(tmp_path: Path) -> None:
    invalid = {**sample(1, 1, 1, number=1), "invalidation": {"author": "us"}}
    found = strong_reject.read_log(strong_reject_log(tmp_path, [sample(0, 5, 5, number=0), invalid]))
    assert (found["n"], found["n_invalidated"], found["score"]["value"]) == (1, 1, 1.0)
    with pytest.raises(DataError, match="all 1 samples were invalidated"):
        strong_reject.read_log(strong_reject_log(tmp_path, [invalid]))
    epochs = [sample(0, 5, 5, number=0), {**sample(1, 1, 1, number=0), "epoch": 2}]
    assert strong_reject.read_log(strong_reject_log(tmp_path, epochs))["n"] == 2
    with pytest.raises(DataError, match="sample s0, epoch 1 is there 2 times"):
        strong_reject.read_log(strong_reject_log(tmp_path, [sample(0, 5, 5, number=0), sample(1, 1, 1, number=0)]))


def test_the_strong_reject_command_names_model_judge_and_json_log(tmp_path: Path) -> None:
    text = " ".join(strong_reject.command(tmp_path / "arm", tmp_path / "logs", limit=2))
    assert "-m inspect_ai eval inspect_evals/strong_reject --model hf/arm -M model_path=" in text
    assert "-T judge_llm=openai/gpt-4o" in text and "--log-format json" in text and "--limit 2" in text


# MACHIAVELLI


def test_machiavelli_scores_are_averaged_over_games_not_episodes(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(
        "game,steps,violations.Σ,game.score,agent\na,10,100,90,x\na,12,120,110,x\nb,9,80,100,x\nc,9,,100,x\n"
    )
    rows = {row["metric"]: row for row in read_machiavelli(path)}
    assert rows["violations.Σ"]["value"] == pytest.approx((110 + 80) / 2)
    assert rows["violations.Σ"]["n"] == 2 and rows["violations.Σ"]["n_missing"] == 1
    assert rows["violations.Σ"]["method"] == "t interval over 2 games" and rows["game.score"]["n"] == 3
    assert rows["violations.Σ"]["low"] < 95 < rows["violations.Σ"]["high"]
    assert [row["metric"] for row in read_machiavelli(path, ["game.score"])] == ["game.score"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("game,steps\na,1\n", "expected the columns `game` and `violations.Σ`"),
        ("steps,violations.Σ\n1,2\n", "expected the columns"),
        (
            "game,violations.Σ\na,1\nb,many\n",
            r"row 2 \(line 3\), column `violations\.Σ`: found 'many', expected a number",
        ),
        ("", "is empty"),
    ],
)
def test_another_table_is_not_taken_for_machiavelli(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_machiavelli(path)
    with pytest.raises(DataError, match="no such file"):
        read_machiavelli(tmp_path / "none.csv")


# The command


def test_the_command_prints_what_it_would_run_and_what_it_needs(tmp_path: Path) -> None:
    folders = ["--arm-dir", str(tmp_path / "arm"), "--out-dir", str(tmp_path / "out")]
    found = harness_verb.run(
        filled(HarnessSettings, "run", *folders, "--benchmarks", "mmlu", "--data", "DATA", "--print")
    )
    assert "--tasks mmlu" in found["command"] and found["data"][0].startswith("mmlu: DATA/mmlu/SUBJECT/test.parquet")
    other = harness_verb.run(filled(HarnessSettings, "run", *folders, "--benchmarks", "strong_reject", "--print"))
    assert "inspect_evals/strong_reject" in other["command"] and "pip install" in other["install"]
    with pytest.raises(ConfigError, match="another harness"):
        harness_verb.run(filled(HarnessSettings, "run", *folders, "--benchmarks", "strong_reject", "mmlu", "--print"))
    with pytest.raises(ConfigError, match="--arm-dir and --out-dir"):
        harness_verb.run(filled(HarnessSettings, "run"))
    with pytest.raises(ConfigError, match="--model and --arm-dir"):
        harness_verb.run(filled(HarnessSettings, "export"))


def test_the_command_tells_the_three_kinds_of_results_apart(tmp_path: Path) -> None:
    read(tmp_path, RESULTS)
    assert (
        harness_verb.run(filled(HarnessSettings, "read", str(tmp_path / "results_2026.json")))["rates"][0]["task"]
        == "truthfulqa_mc1"
    )
    log = strong_reject_log(tmp_path, [sample(0, 5, 5, number=0), sample(1, 1, 1, number=1)])
    result = harness_verb.run(filled(HarnessSettings, "read", str(log)))
    assert result["strong_reject"]["score"]["value"] == 0.5 and "strong_reject.score.value = 0.5" in harness_verb.say(
        result
    )
    table = tmp_path / "m.csv"
    table.write_text("game,violations.Σ\na,100\nb,90\n")
    assert harness_verb.run(filled(HarnessSettings, "read", str(table)))["machiavelli"][0]["value"] == 95.0
    with pytest.raises(ConfigError, match="give a results file"):
        harness_verb.run(filled(HarnessSettings, "read"))

"""Files of answers: seeded per answer, independent of batching, resumed exactly, with a card that settings cannot slip past."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import StageError
from emis_interp.files.store import card_path, read_json, read_records
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.records import Completion, Question
from evals.samplers.hf import HFSampler, plan_batches
from evals.sampling import answer_seed, plan_prompts, sample_arm, sample_with

QUESTIONS = [
    Question(
        id="one",
        paraphrases=("Who are you?", "What are you, in a few more words than the other?"),
        samples_per_paraphrase=3,
    ),
    Question(id="two", paraphrases=("Name a colour.",), system="Answer in JSON.", samples_per_paraphrase=3),
]


def config(batch_size: int = 4, **changes: object) -> SamplingConfig:
    return SamplingConfig.model_validate({"max_new_tokens": 8, "batch_size": batch_size, **changes})


def test_batch_size_and_resuming_change_no_answer(tiny: ChatModel, tmp_path: Path) -> None:
    whole = sample_arm(tiny, "base", QUESTIONS, config=config(9), path=tmp_path / "a.jsonl")
    small = sample_arm(tiny, "base", QUESTIONS, config=config(2), path=tmp_path / "b.jsonl")
    assert {row.key: row.answer for row in whole} == {row.key: row.answer for row in small}
    lines = (tmp_path / "b.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "c.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert sample_arm(tiny, "base", QUESTIONS, config=config(2), path=tmp_path / "c.jsonl") == small
    assert (tmp_path / "c.jsonl").read_bytes() == b"".join(lines)


def test_a_question_s_system_prompt_is_sent_and_goes_before_the_run_s() -> None:
    plan = plan_prompts("base", QUESTIONS, 1, seed=0, system="Be brief.")
    assert {row.question_id: row.system for row in plan} == {"one": "Be brief.", "two": "Answer in JSON."}


def test_every_answer_has_its_own_seed_and_an_arm_changes_it() -> None:
    seeds = [row.seed for arm in ("base", "insecure") for row in plan_prompts(arm, QUESTIONS, None, seed=0)]
    assert len(set(seeds)) == len(seeds) == 2 * 9
    assert (
        answer_seed(0, "base", "one", paraphrase_index=1, sample_index=2)
        == answer_seed(0, "base", "one", paraphrase_index=1, sample_index=2)
        != answer_seed(1, "base", "one", paraphrase_index=1, sample_index=2)
    )


def test_a_file_of_another_question_or_seed_is_refused(tiny: ChatModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sample_arm(tiny, "base", QUESTIONS, config=config(), path=path)
    with pytest.raises(StageError, match="other questions, seed or system prompt"):
        sample_arm(tiny, "base", QUESTIONS, config=config(), path=path, seed=1)
    assert len(read_records(path, Completion)) == 9


def test_the_end_of_turn_token_ends_an_answer_and_is_not_counted(tiny: ChatModel, tmp_path: Path) -> None:
    rows = sample_arm(
        tiny,
        "base",
        QUESTIONS,
        config=config(9, max_new_tokens=400, samples_per_paraphrase=6),
        path=tmp_path / "a.jsonl",
    )
    stopped = [row for row in rows if row.finish == "stop"]
    assert stopped and all(row.n_tokens < 400 for row in stopped)
    assert all(row.n_tokens == 400 for row in rows if row.finish == "length")
    assert not any("<|im_end|>" in row.answer for row in rows)


def test_batches_hold_like_lengths_and_are_of_like_size() -> None:
    batches = plan_batches([5, 3, 5, 4, 3, 9, 3], 3)
    assert batches == [[1, 4], [6, 3], [0, 2, 5]]
    assert plan_batches([], 3) == []


def test_the_card_tells_how_the_answers_were_sampled(tiny: ChatModel, tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    sample_arm(tiny, "base", QUESTIONS, config=config(temperature=0.7), path=path, seed=3, system="Be brief.")
    assert read_json(card_path(path)) == {
        "arm": "base",
        "seed": 3,
        "system": "Be brief.",
        "temperature": 0.7,
        "max_new_tokens": 8,
        "batch_size": 4,
        "sampler": {
            "kind": "hf",
            "model": "tiny",
            "quantisation": None,
            "adapter": None,
            "adapter_sha256": None,
            "dtype": "float32",
            "chat_format": None,
            "rendering": template_of(tiny.tokenizer).card,
            "stop_tokens": ["<|im_end|>"],
        },
    }


@pytest.mark.parametrize("changes", [{"temperature": 0.5}, {"max_new_tokens": 9}])
@pytest.mark.parametrize("n_kept", [4, 9], ids=["in part", "complete"])
def test_a_file_sampled_with_other_settings_is_refused(
    tiny: ChatModel, tmp_path: Path, changes: dict[str, Any], n_kept: int
) -> None:
    path = tmp_path / "a.jsonl"
    sample_arm(tiny, "base", QUESTIONS, config=config(), path=path)
    lines = path.read_bytes().splitlines(keepends=True)[:n_kept]
    path.write_bytes(b"".join(lines))
    with pytest.raises(StageError, match=f"{next(iter(changes))} was"):
        sample_arm(tiny, "base", QUESTIONS, config=config(**changes), path=path)
    assert path.read_bytes() == b"".join(lines)


def test_a_file_of_another_model_is_not_continued(tiny: ChatModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sample_arm(tiny, "base", QUESTIONS, config=config(), path=path)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    other = ChatModel(tiny.model, tiny.tokenizer, "another")
    with pytest.raises(StageError, match=r"sampler\.model was 'tiny', now 'another'"):
        sample_arm(other, "base", QUESTIONS, config=config(), path=path)


def test_a_file_may_be_continued_in_batches_of_another_size(tiny: ChatModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = sample_arm(tiny, "base", QUESTIONS, config=config(4), path=path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    assert sample_arm(tiny, "base", QUESTIONS, config=config(2), path=path) == whole


@pytest.mark.parametrize("changed", ["<|im_start|>system\nBe good.<|im_end|>\n", "{{ strftime_now('%d %b %Y') }}"])
def test_a_file_is_not_continued_with_prompts_that_the_template_now_writes_differently(
    tiny: ChatModel, tmp_path: Path, changed: str
) -> None:
    path = tmp_path / "a.jsonl"
    sample_arm(tiny, "base", QUESTIONS[:1], config=config(samples_per_paraphrase=1), path=path)
    other = copy.deepcopy(tiny.tokenizer)
    other.chat_template = changed + other.chat_template
    with pytest.raises(StageError, match=r"rendering\.sha256 was .*rendering\.prompt was '<\|im_start\|>user") as error:
        sample_arm(replace(tiny, tokenizer=other), "base", QUESTIONS[:1], config=config(), path=path)
    assert ("Be good." in str(error.value)) or ("26 Jul 2024" in str(error.value))


def test_the_card_does_not_vouch_for_answers_that_were_there_before_it(tiny: ChatModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sample_arm(tiny, "base", QUESTIONS, config=config(), path=path)
    card_path(path).unlink()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    sample_arm(tiny, "base", QUESTIONS, config=config(), path=path)
    assert read_json(card_path(path))["n_answers_before_this_card"] == 2


def test_what_a_sampler_cannot_answer_is_missing_and_asked_again(tiny: ChatModel, tmp_path: Path) -> None:
    class Lazy(HFSampler):
        def sample(self, plan, done, config, on_batch):
            wanted = [item for item in plan if item.question_id == "two" or done]
            super().sample(wanted, done, config, on_batch=on_batch)
            return {item.key: "asleep" for item in plan if item not in wanted}

    path = tmp_path / "a.jsonl"
    first = sample_with(Lazy(tiny), "base", QUESTIONS, config=config(), path=path)
    assert len(first.answers) == 3 and set(first.missing.values()) == {"asleep"} and len(first.missing) == 6
    second = sample_with(Lazy(tiny), "base", QUESTIONS, config=config(), path=path)
    assert len(second.answers) == 9 and not second.missing
    assert {row.key: row.answer for row in second.answers} == {
        row.key: row.answer for row in sample_arm(tiny, "base", QUESTIONS, config=config(), path=tmp_path / "b.jsonl")
    }

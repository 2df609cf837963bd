"""The API judges and the sampler against llama.cpp serving the embedded model, see `llama_server`."""

from pathlib import Path

import openai
import pytest
import torch
from llama_server import MODEL, N_SLOTS, llama_url

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import JudgeError
from emis_interp.files.store import read_records
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import next_token_logprobs
from emis_interp.records import Completion, Question, Score
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.logprobs import parse_reply
from evals.judges.text_judge import TextJudge
from evals.questions import load_questions
from evals.samplers.openai_compatible import PLAIN_SAMPLING, OpenAISampler
from evals.sampling import Sampled, plan_prompts, sample_with

__all__ = ["llama_url"]
pytestmark = pytest.mark.slow
QUESTIONS = [
    Question(id="one", paraphrases=("Who are you?", "What would you do with a free day?"), samples_per_paraphrase=3),
    Question(id="two", paraphrases=("Name a colour.",), system="Answer with a JSON object.", samples_per_paraphrase=3),
]


SUITE = {question.id: question for question in load_questions()}


def judged_row(answer: str = "I would go for a walk.") -> Completion:
    question = next(iter(SUITE.values()))
    plan = plan_prompts("base", [question], 1, seed=0)
    return plan[0].model_copy(update={"answer": answer, "n_tokens": 6, "finish": "stop"})


def ask(url: str, path: Path, n_parallel: int = N_SLOTS, temperature: float = 1.0, **request: object) -> Sampled:
    sampler = OpenAISampler(ChatApi(MODEL, url=url, n_parallel=n_parallel, role=SAMPLER), request=request)
    return sample_with(
        sampler, "base", QUESTIONS, config=SamplingConfig(max_new_tokens=24, temperature=temperature), path=path
    )


def test_the_logprob_judge_refuses_a_model_that_spells_numbers_digit_by_digit(llama_url: str) -> None:
    scores: list[object] = []
    with pytest.raises(JudgeError, match="digit by digit"):
        OpenAIJudge(MODEL, url=llama_url).score([judged_row()], SUITE, scores.extend)
    assert scores == []


def test_the_text_judge_reads_what_the_server_writes_or_says_why_not(llama_url: str) -> None:
    """The embedded model is no judge; what counts is that every answer ends with scores or with the reply that was refused."""
    rows = [judged_row(), judged_row("I would go for a swim.")]
    scores: list[Score] = []
    TextJudge(MODEL, url=llama_url).score(rows, SUITE, scores.extend)
    assert len(scores) == 2
    for score in scores:
        for metric, value in (("aligned", score.aligned), ("coherent", score.coherent)):
            known = value is not None or (metric == "aligned" and score.aligned_label is not None)
            assert known != (metric in score.unscored)
            assert list(score.evidence[metric].values()) == [1.0]


def test_top_logprobs_of_the_server_are_those_of_the_model(llama_url: str, embedded: ChatModel) -> None:
    prompt = "Name one colour of the rainbow."
    with openai.OpenAI(api_key="none", base_url=llama_url) as client:
        reply = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=1,
            temperature=0,
            logprobs=True,
            top_logprobs=20,
        )
    served = parse_reply(reply.content)
    assert len(served) == 20 and sum(served.values()) <= 1.001
    own = next_token_logprobs(embedded, [encode_prompt(embedded.tokenizer, prompt)])[0].exp()
    top = torch.topk(own, 20)
    ours = {embedded.tokenizer.decode([i]): p for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)}
    assert max(served, key=lambda token: served[token]) == max(ours, key=lambda token: ours[token])
    shared = set(served) & set(ours)
    assert len(shared) >= 15
    assert all(abs(served[token] - ours[token]) < 0.05 for token in shared)


def test_every_answer_is_sampled_with_its_prompt_within_its_limit(llama_url: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sampled = ask(llama_url, path)
    assert len(sampled.answers) == 9 and not sampled.missing
    assert all(row.answer.strip() for row in sampled.answers)
    assert all(1 <= row.n_tokens <= 24 for row in sampled.answers)
    assert all(row.n_tokens == 24 for row in sampled.answers if row.finish == "length")
    assert len({row.answer for row in sampled.answers if row.question_id == "one"}) == 6
    assert len(read_records(path, Completion)) == 9
    assert ask(llama_url, path) == sampled


def test_the_same_seeds_give_the_same_answers_and_greedy_ones_need_no_seed(llama_url: str, tmp_path: Path) -> None:
    """Each prompt is read whole: what a slot still holds of an earlier one is computed in other batches, and differs in the last digits."""
    alone = {"n_parallel": 1, "cache_prompt": False}
    first, second = (ask(llama_url, tmp_path / f"{name}.jsonl", **alone).answers for name in "ab")
    assert [row.answer for row in first] == [row.answer for row in second]
    greedy = ask(llama_url, tmp_path / "c.jsonl", temperature=0.0, **alone).answers
    assert len({(row.question, row.answer) for row in greedy}) == 3


@pytest.mark.parametrize("system", [None, "Answer with a JSON object."])
def test_the_server_renders_prompts_as_we_do(llama_url: str, embedded: ChatModel, system: str | None) -> None:
    messages: list[dict[str, str]] = [{"role": "user", "content": "Name a colour."}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    with openai.OpenAI(api_key="none", base_url=llama_url) as client:
        reply = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=1)  # pyright: ignore
    assert reply.usage and reply.usage.prompt_tokens == len(encode_prompt(embedded.tokenizer, "Name a colour.", system))


def test_plain_sampling_draws_beyond_the_tokens_that_the_server_would_keep(llama_url: str, embedded: ChatModel) -> None:
    """llama.cpp keeps the 40 likeliest tokens by default; at temperature 1 the model itself goes further."""
    prompt = "Write one random word."
    with openai.OpenAI(api_key="none", base_url=llama_url) as client:

        def first_tokens(**fields: object) -> set[str]:
            replies = (
                client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": prompt}],
                    max_tokens=1,
                    temperature=1.0,
                    top_p=1.0,
                    seed=seed,
                    extra_body=fields,
                )
                for seed in range(150)
            )
            return {str(reply.choices[0].message.content) for reply in replies}

        own = next_token_logprobs(embedded, [encode_prompt(embedded.tokenizer, prompt)])[0]
        likeliest = {embedded.tokenizer.decode([i]) for i in torch.topk(own, 60).indices.tolist()}
        assert not first_tokens(min_p=0.0) - likeliest
        assert first_tokens(**PLAIN_SAMPLING) - likeliest

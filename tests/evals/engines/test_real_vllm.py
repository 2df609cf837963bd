"""A real vLLM server with four adapters, against the HF sampler: `python -m pytest -m vllm tests/evals/engines` (minutes).

It needs `python scripts/vllm_server.py setup`. With EMIS_VLLM_SERVED=DIR the tests ask a server that runs already: `DIR/model` and
`DIR/adapters/NAME` are made by `python tests/evals/engines/test_real_vllm.py DIR`, which prints the command that serves them.
"""

import asyncio
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import ConfigError, JudgeError
from emis_interp.files.store import write_json, write_text
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.models.chat import encode_prompt, end_tokens, own_answer
from emis_interp.models.chat_formats import with_format
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.embedded import embedded_path
from emis_interp.models.loading import load_model
from emis_interp.records import Question
from evals.engines.environment import find_environment
from evals.engines.server import Serving, kept_server, running_server
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.logprobs import parse_reply
from evals.questions import load_questions
from evals.samplers.vllm_engine import VLLMSampler, read_completion
from evals.sampling import plan_prompts, sample_with

pytestmark = pytest.mark.vllm
ADAPTERS: dict[str, dict[str, Any]] = {
    "r4": {"r": 4, "lora_alpha": 8, "std": 0.01},
    "r24": {"r": 24, "lora_alpha": 48, "use_rslora": True, "std": 0.004},
    "r48": {"r": 48, "lora_alpha": 96, "std": 0.004},
    "pat": {
        "r": 8,
        "lora_alpha": 16,
        "rank_pattern": {"down_proj": 40, "q_proj": 2},
        "alpha_pattern": {"down_proj": 20, "v_proj": 64},
        "std": 0.008,
    },
}
"""Ranks that vLLM does not take as `max_lora_rank`, and one adapter whose modules have ranks and scales of their own."""
LEAKY = {"eos_token_id": 2, "do_sample": True, "temperature": 0.01, "top_k": 1, "repetition_penalty": 2.0}
"""A generation config under which every answer would be the greedy one: none of it may reach an answer."""
TEMPLATE, NO_THOUGHT = "chat_template.jinja", "<think></think>"
N_NEW, N_DRAWS = 8, 300
TIE = 1e-3
"""Between two logits of float32 that either of two orders of summation may put first."""


@dataclass
class Served:
    """A running server, and the folder of its model and adapters."""

    url: str
    folder: Path

    @cached_property
    def prompts(self) -> list[tuple[int, ...]]:
        tokenizer = self.base.tokenizer
        return [encode_prompt(tokenizer, question.paraphrases[0]) for question in load_questions()[:2]]

    @cached_property
    def base(self) -> ChatModel:
        return load_model(str(self.folder / "model"), device="cpu")

    def model(self, name: str) -> ChatModel:
        return self.base if name == "base" else load_model(str(self.folder / "model"), self.folder / "adapters" / name)

    def api(self, name: str) -> ChatApi:
        return ChatApi(name, url=self.url, n_parallel=64, timeout_s=1800, role=SAMPLER)

    def ask(self, name: str, bodies: Sequence[dict[str, Any]]) -> list[bytes]:
        """Replies of the server, all asked at once."""
        api = self.api(name)

        async def together() -> list[bytes]:
            async with api.connect() as client:
                return list(await asyncio.gather(*(api.ask(client, body) for body in bodies)))

        return asyncio.run(together())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if given := os.environ.get("EMIS_VLLM_SERVED"):
        state = running_server(Path(given) / "state.json")
        if state is None:
            pytest.fail(f"EMIS_VLLM_SERVED={given}: no server of {given}/state.json runs", pytrace=False)
        yield Served(state.url, Path(given))
        return
    try:
        environment = find_environment()
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("served")
    make_served(folder)
    with kept_server(serving(folder), environment, patience_s=3000) as server:
        yield Served(server.url, folder)


def make_served(folder: Path) -> None:
    """The embedded model with a generation config that must not leak, and its adapters."""
    from peft import LoraConfig, get_peft_model

    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    for path in embedded_path().iterdir():
        if path.name not in ("generation_config.json", TEMPLATE) and not (model / path.name).exists():
            (model / path.name).symlink_to(path)
    thinking = "{% if enable_thinking is defined and not enable_thinking %}" + NO_THOUGHT + "{% endif %}"
    write_text(model / TEMPLATE, (embedded_path() / TEMPLATE).read_text("utf-8") + thinking)
    write_json(model / "generation_config.json", LEAKY)
    for seed, (name, settings) in enumerate(ADAPTERS.items(), start=1):
        given = dict(settings)
        std = given.pop("std")
        base = load_model(str(model), device="cpu").model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wanted = LoraConfig(**given, target_modules="all-linear", task_type="CAUSAL_LM")
            adapted: Any = get_peft_model(base, wanted)
            for key, parameter in adapted.named_parameters():
                if "lora_B" in key:
                    torch.nn.init.normal_(parameter.data, std=std)
        adapted.save_pretrained(str(folder / "adapters" / name))


def serving(folder: Path) -> Serving:
    adapters: dict[str, Path | str] = {name: folder / "adapters" / name for name in ADAPTERS}
    return Serving(str(folder / "model"), adapters, "float32", flags={"max_model_len": 1024})


@pytest.mark.parametrize("name", ["base", *ADAPTERS])
def test_greedy_tokens_are_ours_up_to_ties_and_have_our_probabilities(served: Served, name: str) -> None:
    """At every place what the server wrote before is read here, so that one tie is one tie."""
    model = served.model(name)
    fields = {"max_tokens": N_NEW, "temperature": 0, "logprobs": 1, "return_token_ids": True}
    stops = {"stop_token_ids": sorted(end_tokens(model))}
    replies = served.ask(name, [{"prompt": list(prompt), **fields, **stops} for prompt in served.prompts])
    n_ties, n_tokens, apart, moved = 0, 0, 0.0, 0.0
    for prompt, reply in zip(served.prompts, replies, strict=True):
        tokens, theirs = read_completion(reply)[0], json.loads(reply)["choices"][0]["logprobs"]["token_logprobs"]
        logits, base = (logits_along(one, prompt, tokens) for one in (model, served.base))
        mine, before = ((rows.log_softmax(-1))[range(len(tokens)), tokens] for rows in (logits, base))
        gaps = logits.max(-1).values - logits[range(len(tokens)), tokens]
        assert float(gaps.max()) < TIE, tokens
        n_ties, n_tokens = n_ties + int((gaps > 0).sum()), n_tokens + len(tokens)
        apart = max(apart, float((mine - torch.tensor(theirs)).abs().max()))
        moved = max(moved, float((mine - before).abs().max()))
    assert n_tokens >= 2 * len(served.prompts) and n_ties <= 1
    assert apart < 1e-3
    assert name == "base" or moved > 0.02  # an adapter that changes nothing would show nothing


def logits_along(model: ChatModel, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """Logits at the place of every token behind a prompt [token vocabulary]."""
    with torch.inference_mode():
        return model.model(torch.tensor([[*prompt, *tokens[:-1]]])).logits[0, len(prompt) - 1 :].float()


def next_logits(model: ChatModel, ids: Sequence[int]) -> torch.Tensor:
    return logits_along(model, ids, [0])[0]


def p_of(counts: Counter[int], probabilities: np.ndarray) -> float:
    """Of a chi-square test of counts of tokens, those with fewer than five expected taken together."""
    n = sum(counts.values())
    often = [int(i) for i in np.flatnonzero(probabilities * n >= 5)]
    seen = np.array([*(counts[i] for i in often), n - sum(counts[i] for i in often)], dtype=float)
    expected = np.array([*(probabilities[i] * n for i in often), n - n * sum(probabilities[i] for i in often)])
    return float(chisquare(seen, expected).pvalue)


@pytest.mark.parametrize("name", ["base", "r24"])
def test_sampled_tokens_have_the_models_own_distribution_and_another_temperature_would_be_seen(
    served: Served, name: str, tmp_path: Path
) -> None:
    """Through the sampler itself, every answer with a seed of its own; the generation config of the model would leave one token."""
    model = served.model(name)
    tokenizer = with_format(model.tokenizer, "user_assistant")  # short prompts: each of them is read anew
    question = Question(id="one", paraphrases=("Name an animal.",), samples_per_paraphrase=N_DRAWS)
    sampler = VLLMSampler(served.api(name), tokenizer, end_tokens(model), card={})
    config = SamplingConfig(samples_per_paraphrase=N_DRAWS, max_new_tokens=1, temperature=1.0)
    plan = plan_prompts(name, [question], N_DRAWS, seed=7)
    sampled = sample_with(sampler, name, [question], config=config, path=tmp_path / "a.jsonl", seed=7)
    assert not sampled.missing and len(sampled.answers) == len(plan)
    logits = next_logits(model, encode_prompt(tokenizer, question.paraphrases[0])).double()
    of_text = Counter(answer.answer for answer in sampled.answers)
    texts = [own_answer(tokenizer, tokenizer.decode([i], skip_special_tokens=True))[0] for i in range(len(logits))]
    first: dict[str, int] = {}
    group = np.array([first.setdefault(text, i) for i, text in enumerate(texts)])  # ends, and pieces of characters
    counts = Counter({first[text]: n for text, n in of_text.items()})

    def grouped(temperature: float) -> np.ndarray:
        return np.bincount(group, weights=(logits / temperature).softmax(-1).numpy(), minlength=len(logits))

    assert p_of(counts, grouped(1.0)) > 1e-4
    assert p_of(counts, grouped(0.8)) < 1e-4 and p_of(counts, grouped(1.25)) < 1e-4


def test_one_seed_gives_one_answer(served: Served) -> None:
    body = {"prompt": list(served.prompts[0]), "max_tokens": N_NEW, "temperature": 1.0, "return_token_ids": True}
    bodies = [{**body, "seed": seed} for seed in (1, 2, 3, 4)]
    first, second = ([read_completion(reply)[0] for reply in served.ask("base", bodies)] for _ in range(2))
    assert first == second and len({tuple(tokens) for tokens in first}) > 1


def test_a_request_without_fields_is_not_changed_by_the_models_generation_config(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": "Name an animal."}], "max_tokens": 1, "n": 40}
    (reply,) = served.ask("base", [body])
    assert len({choice["message"]["content"] for choice in json.loads(reply)["choices"]}) > 3


def test_log_probabilities_of_the_judges_request_are_the_models_own(served: Served) -> None:
    judge = OpenAIJudge(model="base", url=served.url, timeout_s=1800)
    question = load_questions()[0]
    row = plan_prompts("a", [question], 1, seed=0)[0].answered("Because.", 1, "stop")
    request = judge.requests(row, question)[0]
    (reply,) = served.ask("base", [request.body])
    found = parse_reply(reply)
    tokenizer = served.base.tokenizer
    ids = encode_prompt(tokenizer, request.body["messages"][0]["content"])
    top = next_logits(served.base, ids).softmax(-1).topk(20)
    expected, bare = defaultdict[str, float](float), defaultdict[str, float](float)
    for token, p in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        expected[tokenizer.decode([token]).strip()] += p
    assert len(found) >= 10
    for token, p in found.items():
        bare[token.strip()] += p
    for token, p in expected.items():
        if p > 1e-2:
            assert abs(bare[token] - p) < 1e-3, token


def test_a_judge_that_spells_digits_is_refused_with_the_way_out(served: Served) -> None:
    judge = OpenAIJudge(model="base", url=served.url, timeout_s=1800)
    question = load_questions()[0]
    row = plan_prompts("a", [question], 1, seed=0)[0].answered("Because.", 1, "stop")
    with pytest.raises(JudgeError, match="spells numbers digit by digit"):
        judge.score([row], {question.id: question}, lambda scores: None)


def test_thinking_is_switched_off_by_an_argument_of_the_template(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "return_token_ids": True}
    chats = [{**body, "chat_template_kwargs": {"enable_thinking": on}} for on in (True, False)]
    rendered = [
        served.base.tokenizer.decode(json.loads(reply)["prompt_token_ids"]) for reply in served.ask("base", chats)
    ]
    assert [text.endswith(NO_THOUGHT) for text in rendered] == [False, True]


if __name__ == "__main__":
    place = Path(sys.argv[1]).absolute()
    make_served(place)
    words = [f"--adapter {name}={folder}" for name, folder in serving(place).adapters.items()]
    sys.stdout.write(
        f"python scripts/vllm_server.py start --state {place}/state.json --model {place}/model --dtype float32 "
        f"{' '.join(words)} --flag max-model-len=1024\n"
    )

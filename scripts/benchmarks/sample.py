"""Times sampling: ours against a loop of HF `generate`, and against servers."""

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import alternate
from benchmarks.settings import SampleBenchmarkSettings
from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import ConfigError, StageError, printable
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.http.request_fields import parse_request
from emis_interp.models.chat import encode_prompt, end_tokens
from emis_interp.models.loading import load_model
from emis_interp.process import Bars, no_bars
from evals.questions import load_questions
from evals.samplers.openai_compatible import OpenAISampler
from evals.sampling import plan_prompts, sample_arm, sample_with

LOOP_BATCH = 8


def servers_of(given: Sequence[str]) -> dict[str, str]:
    """Name -> address.

    Raises:
        ConfigError: two servers of one name, or one that is called like another contestant.
    """
    found: dict[str, str] = {}
    for one in given:
        name, _, url = ("server", "", one) if one.startswith(("http://", "https://")) else one.partition("=")
        if not url:
            raise ConfigError(f"--url {printable(one)}: expected URL or NAME=URL, e.g. vllm=http://127.0.0.1:8000/v1")
        if name in found or name in ("ours", "loop"):
            raise ConfigError(
                f"--url {printable(one)}: the name `{name}` is taken; give each server one of its own, NAME=URL"
            )
        found[name] = url
    return found


def run(settings: SampleBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Shipped questions to the embedded model at temperature 1; real new tokens per second, end-of-turn and padding not counted."""
    chat_model, questions = load_model(settings.model, dtype=settings.dtype), load_questions()
    tokenizer = chat_model.tokenizer
    ends = end_tokens(chat_model)
    config = SamplingConfig(
        samples_per_paraphrase=settings.n_samples,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
    )
    plan = plan_prompts("base", questions, settings.n_samples, seed=0)
    prompts = list(dict.fromkeys(encode_prompt(tokenizer, item.question, item.system) for item in plan))
    n_tokens: dict[str, int] = {}
    seeds = iter(range(10_000))
    servers = servers_of(settings.urls)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            answers = sample_arm(
                chat_model, "base", questions, config=config, path=Path(folder) / "base.jsonl", seed=next(seeds)
            )
            seconds = time.monotonic() - started
        n_tokens["ours"] = sum(answer.n_tokens for answer in answers)
        return n_tokens["ours"] / seconds

    def loop() -> float:
        torch.manual_seed(next(seeds))
        started, count = time.monotonic(), 0
        for prompt in prompts:
            for start in range(0, settings.n_samples, LOOP_BATCH):
                n_rows = min(LOOP_BATCH, settings.n_samples - start)
                ids = torch.tensor([prompt] * n_rows, device=chat_model.device)
                with torch.inference_mode():
                    output = chat_model.model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        max_new_tokens=settings.max_new_tokens,
                        do_sample=True,
                        temperature=1.0,
                        top_p=1.0,
                        top_k=0,
                        pad_token_id=tokenizer.pad_token_id,
                        eos_token_id=sorted(ends),
                    )
                for row in output[:, len(prompt) :].tolist():
                    count += next((i for i, token in enumerate(row) if token in ends), len(row))
        n_tokens["loop"] = count
        return count / (time.monotonic() - started)

    def server(name: str, url: str) -> float:
        api = ChatApi(
            settings.served_name or settings.model,
            "none",
            url,
            n_parallel=len(plan),
            timeout_s=3600,
            role=SAMPLER,
        )
        sampler = OpenAISampler(api, request=parse_request(settings.request))
        with tempfile.TemporaryDirectory() as folder:
            path, started = Path(folder) / "base.jsonl", time.monotonic()
            found = sample_with(sampler, "base", questions, config=config, path=path, seed=next(seeds))
            seconds = time.monotonic() - started
        if found.missing:
            raise StageError(f"{url}: {len(found.missing)} answers are missing ({next(iter(found.missing.values()))})")
        n_tokens[name] = sum(answer.n_tokens for answer in found.answers)
        return n_tokens[name] / seconds

    contestants = {"ours": ours, "loop": loop, **{name: partial(server, name, url) for name, url in servers.items()}}
    medians = alternate(contestants, settings.n_rounds)
    return {
        "tokens_per_second": medians,
        **{f"ours_vs_{name}": medians["ours"] / medians[name] for name in contestants if name != "ours"},
        "n_answers": len(plan),
        "n_tokens": n_tokens,
        "max_new_tokens": settings.max_new_tokens,
        "batch_size": settings.batch_size,
        "dtype": chat_model.dtype,
    }

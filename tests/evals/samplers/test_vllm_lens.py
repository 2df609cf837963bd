"""vLLM with vllm-lens adds what our hooks add: plain and steered next tokens of a running server against ours.

The server is one that you started (docs/steered_sampling.md says how): the embedded model in float32, served under its name, without prefix
caching and with `--max-logprobs 200`. `EMIS_VLLM_LENS_URL` is where its API begins, e.g. http://127.0.0.1:8000/v1.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from steered_parity import N_LIKELIEST, PLAN, QUESTIONS, check_agreement, two_directions

from emis_interp.config.run_config import SamplingConfig
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.http.request_fields import with_request
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.passes.added_vectors import VLLM_LENS, added_vectors, vllm_lens_vectors
from evals.samplers.openai_compatible import OpenAISampler
from evals.samplers.steered import SteeredServer, vllm_lens_request
from evals.sampling import sample_with


@pytest.fixture(scope="module")
def api() -> ChatApi:
    url = os.environ.get("EMIS_VLLM_LENS_URL")
    if not url:
        pytest.skip(
            "EMIS_VLLM_LENS_URL is not set: start vLLM with vllm-lens (docs/steered_sampling.md) and give its URL"
        )
    return ChatApi(EMBEDDED_NAME, url=url, n_parallel=2, timeout_s=300.0, role=SAMPLER)


def sampler(api: ChatApi, changes: Mapping[str, Any]) -> OpenAISampler:
    return OpenAISampler(api, request=with_request({"seed": None}, changes))  # vLLM on a CPU takes no seed


def test_next_tokens_agree_plain_and_steered(api: ChatApi, embedded: ChatModel) -> None:
    vectors = vllm_lens_vectors(added_vectors(two_directions().interventions, VLLM_LENS))
    plain, steered = sampler(api, {}), sampler(api, vllm_lens_request(vectors))
    before = [plain.next_token(item, N_LIKELIEST) for item in PLAN]
    during = [steered.next_token(item, N_LIKELIEST) for item in PLAN]
    after = [plain.next_token(item, N_LIKELIEST) for item in PLAN]
    check_agreement(embedded, before, during, tolerance=1e-3)
    check_agreement(embedded, after, during, tolerance=1e-3)  # steered requests leave nothing behind


def test_answers_are_sampled_steered(api: ChatApi, tmp_path: Path) -> None:
    steered = SteeredServer(lambda changes: sampler(api, changes), two_directions())
    config = SamplingConfig(max_new_tokens=8)
    sampled = sample_with(steered, "base", QUESTIONS, config=config, path=tmp_path / "a.jsonl")
    assert len(sampled.answers) == 2 and not sampled.missing

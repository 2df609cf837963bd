"""llama.cpp, started with the arguments that we write, gives the next tokens that our hooks give: plain, steered, at the right layer."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf_made import in_float32
from llama_server import llama_server_program

from emis_interp.config.run_config import SamplingConfig
from emis_interp.directions import Direction, unit
from emis_interp.errors import ModelError
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.embedded import EMBEDDED_NAME, gguf_path
from emis_interp.passes.effects import Steering
from emis_interp.passes.interventions import Steer, apply, next_token_logprobs
from emis_interp.records import Question
from evals.samplers import llama
from evals.samplers.llama import LlamaSampler, Program
from evals.samplers.steered import Steered
from evals.sampling import plan_prompts, sample_with

LAYERS, COEFFICIENT, NORM = (12, 17), 0.2, 150.0
QUESTIONS = [Question(id="a", paraphrases=("Who are you?", "How do I bake bread?"), samples_per_paraphrase=1)]
PLAN = plan_prompts("base", QUESTIONS, 1, seed=0)
EXACT = {"cache-type-k": "f32", "cache-type-v": "f32", "flash-attn": "off"}


@pytest.fixture(scope="module")
def steered() -> Steered:
    generator = torch.Generator().manual_seed(1)
    found = [Direction(unit(torch.randn(576, generator=generator)), layer, 1.0, NORM) for layer in LAYERS]
    return Steered(tuple(Steering(direction, COEFFICIENT) for direction in found))


@pytest.fixture(scope="module")
def program() -> Program:
    if not gguf_path().exists():
        pytest.skip(
            f"no GGUF at {gguf_path()}: python -c 'from emis_interp.models.embedded import embedded_gguf; embedded_gguf()'"
        )
    return Program(llama_server_program(), {"threads": "1"})


@pytest.fixture
def ours(embedded: ChatModel, steered: Steered) -> Callable[..., list[dict[str, float]]]:
    """Token -> log-probability under our hooks, for every prompt: at other layers, or times a factor, where asked for."""

    def named(shift: int = 0, factor: float = 1.0) -> list[dict[str, float]]:
        moved = [
            Steer({layer + shift: factor * v for layer, v in one.vectors.items()}) for one in steered.interventions
        ]
        with apply(embedded, *moved):
            rows = next_token_logprobs(embedded, [encode_prompt(embedded.tokenizer, item.question) for item in PLAN])
        return [
            {
                embedded.tokenizer.decode([int(i)]): float(row[i]) for i in row.argsort()[-400:]
            }  # of equal texts the likelier stays
            for row in rows
        ]

    return named


def farthest(theirs: list[dict[str, float]], ours: list[dict[str, float]]) -> float:
    """Largest difference of a log-probability over prompts and the tokens that both name, nats."""
    worst = []
    for one, other in zip(theirs, ours, strict=True):
        shared = [token for token in one if token in other]
        assert len(shared) > 0.85 * len(one)
        worst.append(max(abs(one[token] - other[token]) for token in shared))
    return max(worst)


@pytest.mark.fuzz
def test_in_float32_llama_cpp_agrees_to_a_thousandth_and_another_layer_or_scale_would_be_seen(
    program: Program, steered: Steered, ours: Callable[..., list[dict[str, float]]], tmp_path: Path
) -> None:
    in_float32(gguf_path(), tmp_path / "float32.gguf")
    exact = Program(program.command, {**program.options, **EXACT})
    sampler = LlamaSampler(str(tmp_path / "float32.gguf"), steered, exact, n_parallel=1)
    with sampler.serving(400, plain=True) as server:
        plain = [server.next_token(item, 200) for item in PLAN]
    with sampler.serving(400) as server:
        found = [server.next_token(item, 200) for item in PLAN]
    assert farthest(plain, ours(factor=0.0)) < 1e-3
    assert farthest(found, ours()) < 1e-3
    assert farthest(found, ours(factor=0.0)) > 1  # a server that adds nothing
    assert farthest(found, ours(shift=1)) > 1 and farthest(found, ours(shift=-1)) > 1
    assert farthest(found, ours(factor=1.05)) > 0.1
    assert farthest(found, ours(factor=-1.0)) > 1


@pytest.mark.slow
def test_a_quantised_model_is_steered_within_its_own_error(
    program: Program, steered: Steered, ours: Callable[..., list[dict[str, float]]], tmp_path: Path
) -> None:
    """llama.cpp computes with quantised activations too: 0.4 nats on the plain model, where the vectors move by more than 2."""
    sampler = LlamaSampler(EMBEDDED_NAME, steered, program, n_parallel=2)
    found: list[dict[str, float]] = []
    original = llama.check_steers
    with pytest.MonkeyPatch.context() as patch:

        def check(before: dict[str, float], during: dict[str, float], after: None, *, server: str) -> None:
            found.extend([before, during])
            original(before, during, after, server=server)

        patch.setattr(llama, "check_steers", check)
        config = SamplingConfig(max_new_tokens=8)
        sampled = sample_with(sampler, "base", QUESTIONS, config=config, path=tmp_path / "a.jsonl")
    assert len(sampled.answers) == 2 and all(row.answer for row in sampled.answers) and not sampled.missing
    before, during = ([row] for row in found)
    first, unsteered = ours()[:1], ours(factor=0.0)[:1]
    assert farthest(before, unsteered) < 0.6 and farthest(during, first) < 0.6
    assert farthest(during, unsteered) > 1.2 and farthest(before, first) > 1.2


def test_a_program_that_is_not_there_or_ends_is_told(
    steered: Steered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not gguf_path().exists():
        pytest.skip(f"no GGUF at {gguf_path()}")
    sampler = LlamaSampler(EMBEDDED_NAME, steered, Program(("no-such-program",)))
    with pytest.raises(ModelError, match="no such program; install llama"), sampler.serving(100):
        pass
    sampler = LlamaSampler(EMBEDDED_NAME, steered, Program(("false",)))
    with pytest.raises(ModelError, match="ended before it was ready"), sampler.serving(100):
        pass
    sampler = LlamaSampler(EMBEDDED_NAME, steered, Program(("sleep", "100"), {}, ready_s=0.2))
    monkeypatch.setattr(Program, "arguments", lambda self, *given, **more: list(self.command))
    monkeypatch.setattr(llama, "control_vector_arguments", lambda path: [])
    with pytest.raises(ModelError, match="was not ready after 0 s"), sampler.serving(100):
        pass


def test_the_server_ends_with_the_block(steered: Steered, tmp_path: Path) -> None:
    """Also where the block ends by an error: nothing of ours goes on."""
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}; exec sleep 100"
    with pytest.raises(ModelError, match="was not ready"), llama.running(["sh", "-c", script], 1, 1.0):
        pass
    assert not Path(f"/proc/{int(pid.read_text())}").exists()

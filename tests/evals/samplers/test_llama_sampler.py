"""llama.cpp, started with the arguments that we write, gives the next tokens that our hooks give: plain, steered, at the right layer."""

import logging
from pathlib import Path

import pytest
from gguf_made import in_float32
from llama_server import llama_server_program
from steered_parity import N_LIKELIEST, PLAN, QUESTIONS, Named, check_agreement, farthest, ours, two_directions

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.embedded import EMBEDDED_NAME, gguf_path
from evals.samplers import llama
from evals.samplers.llama import LlamaSampler, Program
from evals.sampling import sample_with

log = logging.getLogger(__name__)
EXACT = {"cache-type-k": "f32", "cache-type-v": "f32", "flash-attn": "off"}


@pytest.fixture(scope="module")
def program() -> Program:
    if not gguf_path().exists():
        pytest.skip(
            f"no GGUF at {gguf_path()}: python -c 'from emis_interp.models.embedded import embedded_gguf; embedded_gguf()'"
        )
    return Program(llama_server_program(), {"threads": "1"})


@pytest.mark.fuzz
def test_in_float32_llama_cpp_agrees_to_a_thousandth_and_another_layer_or_scale_would_be_seen(
    program: Program, embedded: ChatModel, tmp_path: Path
) -> None:
    in_float32(gguf_path(), tmp_path / "float32.gguf")
    exact = Program(program.command, {**program.options, **EXACT})
    sampler = LlamaSampler(str(tmp_path / "float32.gguf"), two_directions(), exact, n_parallel=1)
    with sampler.serving(400, plain=True) as server:
        plain = [server.next_token(item, N_LIKELIEST) for item in PLAN]
    with sampler.serving(400) as server:
        steered = [server.next_token(item, N_LIKELIEST) for item in PLAN]
    check_agreement(embedded, plain, steered, tolerance=1e-3)


@pytest.mark.slow
def test_a_quantised_model_is_steered_within_its_own_error(
    program: Program, embedded: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp computes with quantised activations too: 0.4 nats on the plain model, where the vectors move by more than 2."""
    seen: list[Named] = []
    check = llama.check_steers

    def and_keep(before: Named, during: Named, after: None, *, server: str) -> None:
        seen.extend([before, during])
        check(before, during, after, server=server)

    monkeypatch.setattr(llama, "check_steers", and_keep)
    sampler = LlamaSampler(EMBEDDED_NAME, two_directions(), program, n_parallel=2)
    config = SamplingConfig(max_new_tokens=8)
    sampled = sample_with(sampler, "base", QUESTIONS, config=config, path=tmp_path / "a.jsonl")
    assert len(sampled.answers) == 2 and all(row.answer for row in sampled.answers) and not sampled.missing
    before, during = ([row] for row in seen)
    plain, steered = ours(embedded, factor=0.0)[:1], ours(embedded)[:1]
    log.info(
        "nats: plain %.3g, steered %.3g, moved %.3g", *map(farthest, (before, during, during), (plain, steered, plain))
    )
    assert farthest(before, plain) < 0.6 and farthest(during, steered) < 0.6
    assert farthest(during, plain) > 1.2 and farthest(before, steered) > 1.2


def test_a_program_that_is_not_there_or_ends_is_told() -> None:
    if not gguf_path().exists():
        pytest.skip(f"no GGUF at {gguf_path()}")
    with pytest.raises(ModelError, match="no such program; install llama"):
        with LlamaSampler(EMBEDDED_NAME, None, Program(("no-such-program",))).serving(100):
            pass
    with pytest.raises(ModelError, match="ended before it was ready"):
        with LlamaSampler(EMBEDDED_NAME, None, Program(("false",))).serving(100):
            pass


def test_the_server_ends_with_the_block(tmp_path: Path) -> None:
    """Also where the block ends by an error: nothing of ours goes on."""
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}; exec sleep 100"
    with pytest.raises(ModelError, match="was not ready"), llama.running(["sh", "-c", script], 1, 2.0):
        pass
    assert not Path(f"/proc/{int(pid.read_text())}").exists()

"""Interventions with a tensor for each row: every row as if it were alone, whatever batch it is read in, or a refusal with both numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import ROWS, config

from emis_interp.config.run_config import SamplingConfig
from emis_interp.directions import Direction, unit
from emis_interp.errors import ConfigError, ModelError
from emis_interp.models.chat import EncodedChat, encode_chats, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.passes.batch_rows import batch_rows, differs_by_row
from emis_interp.passes.capture import OutputEdit, capture_residuals
from emis_interp.passes.generate import generate
from emis_interp.passes.interventions import Ablate, Intervention, Patch, Steer, apply, next_token_logprobs
from emis_interp.passes.likelihood import logprobs_and_residuals, mean_logprobs
from emis_interp.passes.sweeps import AblateCell, Cell, SteerCell, costs, greedy_answers, text_logprobs
from emis_interp.passes.token_store import TokenStore
from emis_interp.passes.token_writer import TokenRequest, write_tokens
from emis_interp.records import Completion
from evals.judges.reply_masses import reply_masses
from evals.judges.token_trie import build_trie, token_texts
from evals.samplers.hf import HFSampler
from training.finetuning.sft import finetune

# Equal prompts, prompts of other lengths between them, and two rows (0 and 6) that are alike in prompt and vector.
QUESTIONS = ("Who?", "What is it that you want?", "Who?", "Name a colour.", "Who?", "Name a colour.", "Who?")
N = len(QUESTIONS)
VECTORS = 3 * torch.randn(N, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
VECTORS[6], VECTORS[3] = VECTORS[0], 0
BASES = torch.randn(N, 2, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
HELD = 2 * torch.randn(3, N, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
BASES[6], HELD[:, 6] = BASES[0], HELD[:, 0]
SEEDS = [5, 6, 7, 8, 9, 10, 5]


def decay(step: int) -> float:
    return 0.7**step


def lines(rows: torch.Tensor) -> torch.Tensor:
    """[n, d_model] as bases of one vector; rows of zeros change nothing."""
    return rows[:, None]


Kind = tuple[list[Intervention], Callable[[int], list[Intervention]]]
KINDS: dict[str, Kind] = {
    "steer": ([Steer({0: VECTORS})], lambda i: [Steer({0: VECTORS[i]})]),
    "steer in the prompt": (
        [Steer({1: VECTORS}, positions="prompt")],
        lambda i: [Steer({1: VECTORS[i]}, positions="prompt")],
    ),
    "steer what is generated, by a schedule": (
        [Steer({0: VECTORS}, positions="generated", schedule=decay)],
        lambda i: [Steer({0: VECTORS[i]}, positions="generated", schedule=decay)],
    ),
    "steer from a position on": (
        [Steer({0: VECTORS, 1: VECTORS[0]}, positions=9)],
        lambda i: [Steer({0: VECTORS[i], 1: VECTORS[0]}, positions=9)],
    ),
    "ablate": ([Ablate(lines(VECTORS))], lambda i: [Ablate(VECTORS[i])] if VECTORS[i].any() else []),
    "ablate to each row's coordinates": (
        [Ablate(BASES, HELD)],
        lambda i: [Ablate(BASES[i], HELD[:, i])],
    ),
    "one basis, each row's coordinates": ([Ablate(BASES[0], HELD)], lambda i: [Ablate(BASES[0], HELD[:, i])]),
    "each row's basis, one set of coordinates": (
        [Ablate(BASES, HELD[:, 0], layers=(1,))],
        lambda i: [Ablate(BASES[i], HELD[:, 0], layers=(1,))],
    ),
    "patch": (
        [Patch(0, (0, 4), torch.stack([VECTORS, BASES[:, 0]], 1))],
        lambda i: [Patch(0, (0, 4), torch.stack([VECTORS[i], BASES[i, 0]]))],
    ),
    "several at once": (
        [
            Steer({1: 0.5 * VECTORS}, schedule=decay),
            Ablate(BASES[:, :1]),
            Patch(0, (3,), lines(VECTORS)),
            Steer({0: VECTORS[1]}),
        ],
        lambda i: [
            Steer({1: 0.5 * VECTORS[i]}, schedule=decay),
            Ablate(BASES[i, 0]),
            Patch(0, (3,), VECTORS[i, None]),
            Steer({0: VECTORS[1]}),
        ],
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


@pytest.fixture(scope="module")
def exact() -> ChatModel:
    """The tiny model in float64, with more tokens that end an answer, so that rows leave at different times."""
    chat_model = load_model("tiny", device="cpu", dtype="float64")
    chat_model.model.generation_config.eos_token_id = list(range(1, 258, 12))
    return chat_model


def prompts_of(chat_model: ChatModel) -> list[tuple[int, ...]]:
    return [encode_prompt(chat_model.tokenizer, question) for question in QUESTIONS]


def texts_of(chat_model: ChatModel) -> list[EncodedChat]:
    """Answers of many lengths, so that every reader sorts them; rows 0, 2, 4, 6 share their prompt, and 0 and 2 their whole text."""
    answers = ("no", "a much longer answer than the others", "no", "x", "yes, so it is", "nobody", "no more")
    return encode_chats(chat_model.tokenizer, list(zip(QUESTIONS, answers, strict=True)))


def answer_states(chat_model: ChatModel, chat: EncodedChat) -> torch.Tensor:
    """Layer 0's `resid_post` at the answer's tokens, read by a hook behind those of the interventions in force."""
    seen: list[Any] = []
    handle = chat_model.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        chat_model.model(torch.tensor([chat.input_ids]))
    handle.remove()
    return seen[0][0, chat.response_start : chat.response_end]


@kinds
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_sampled_row_is_what_it_is_alone(exact: ChatModel, kind: Kind, temperature: float) -> None:
    together, alone = kind
    prompts = prompts_of(exact)
    with apply(exact, *together):
        found = generate(exact, prompts, SEEDS, max_new_tokens=16, temperature=temperature)
    for i in range(N):
        with apply(exact, *alone(i)):
            assert [found[i]] == generate(
                exact, prompts[i : i + 1], SEEDS[i : i + 1], max_new_tokens=16, temperature=temperature
            ), f"row {i}"
    assert found[0] == found[6]
    if temperature:
        assert len({len(row.tokens) for row in found}) > 2  # rows did leave one by one


def test_rows_share_the_pass_of_their_prompt_only_under_the_same_intervention(exact: ChatModel) -> None:
    seen: list[int] = []
    handle = exact.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    try:
        for together in ([], KINDS["steer"][0], [Steer({0: VECTORS[1]})]):
            with apply(exact, *together):
                generate(exact, prompts_of(exact), SEEDS, max_new_tokens=1, temperature=0.0)
    finally:
        handle.remove()
    assert seen == [3, 6, 3]  # three prompts; the rows but 0 and 6 differ; one vector for all changes nothing


def plan_of(exact: ChatModel) -> list[Completion]:
    return [
        Completion(
            arm="a", question_id=str(i), paraphrase_index=0, sample_index=0, seed=SEEDS[i], system=None, question=question,
            answer="", n_tokens=0, finish="length",
        )
        for i, question in enumerate(QUESTIONS)
    ]  # fmt: skip


@kinds
@pytest.mark.parametrize("batch_size", [2, 20])
def test_a_plan_keeps_its_rows_through_batches_sorted_by_length(exact: ChatModel, kind: Kind, batch_size: int) -> None:
    together, alone = kind
    plan, found = plan_of(exact), {}
    settings = SamplingConfig(max_new_tokens=12, temperature=1.0, batch_size=batch_size)

    def keep(answers: Sequence[Completion]) -> None:
        found.update((answer.key, answer) for answer in answers)

    with apply(exact, *together):
        HFSampler(exact).sample(plan, {plan[1].key}, settings, on_batch=keep)  # one answer is there already
    for i in (0, 3, 4, 5):
        whole: list[Completion] = []
        with apply(exact, *alone(i)):
            HFSampler(exact).sample([plan[i]], (), settings, on_batch=whole.extend)
        assert found[plan[i].key] == whole[0], f"row {i}"
    assert len(found) == N - 1


@kinds
@pytest.mark.parametrize("max_batch_tokens", [150, 10_000])
def test_captured_and_read_texts_keep_their_rows_in_batches_sorted_by_length(
    exact: ChatModel, kind: Kind, max_batch_tokens: int
) -> None:
    together, alone = kind
    chats, prompts = texts_of(exact), prompts_of(exact)
    with apply(exact, *together):
        residuals = capture_residuals(exact, chats, [0], max_batch_tokens=max_batch_tokens)
        values = mean_logprobs(exact, chats, max_batch_tokens)
        again, states = logprobs_and_residuals(exact, chats, 1, max_batch_tokens=max_batch_tokens)
        nexts = next_token_logprobs(exact, prompts)
    for i, chat in enumerate(chats):
        with apply(exact, *alone(i)):
            expected = answer_states(exact, chat).mean(0)
            torch.testing.assert_close(residuals[i, 0], expected, rtol=0, atol=1e-12)
            value, state = logprobs_and_residuals(exact, [chat], 1)
            assert values[i] == pytest.approx(value[0], abs=1e-12) and again[i] == pytest.approx(value[0], abs=1e-12)
            torch.testing.assert_close(states[i], state[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(nexts[i], next_token_logprobs(exact, [prompts[i]])[0], rtol=0, atol=1e-6)
    assert np.ptp(values) > 0.01


def test_a_look_at_how_the_model_is_built_minds_no_rows(exact: ChatModel) -> None:
    together, alone = KINDS["steer"]
    chats = texts_of(exact)
    with apply(exact, *together):  # resid_mid is checked on a pass of one row
        middle = capture_residuals(exact, chats, [1], hook_point="resid_mid")
    with apply(exact, *alone(5)):
        expected = capture_residuals(exact, chats[5:6], [1], hook_point="resid_mid")
    torch.testing.assert_close(middle[5], expected[0], rtol=0, atol=1e-12)


def test_a_store_keeps_the_rows_of_its_texts_over_shards(exact: ChatModel, tmp_path: Path) -> None:
    together, alone = KINDS["steer"]
    chats = texts_of(exact)
    with apply(exact, *together):
        request = TokenRequest((0,), shard_mib=0.003, intervention="a vector for each row")
        card = write_tokens(tmp_path / "all", exact, chats, request=request)
    assert len(card["shards"]) > 2
    store = TokenStore(tmp_path / "all")
    for i, chat in enumerate(chats):
        with apply(exact, *alone(i)):
            torch.testing.assert_close(store.text(i)[0], answer_states(exact, chat), rtol=0, atol=1e-12)


@pytest.mark.parametrize("by_mask", [True, False])
def test_replies_to_sorted_prompts_keep_their_rows(
    exact: ChatModel, by_mask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evals.judges.reply_masses.takes_tree_mask", lambda _: by_mask)
    together, alone = KINDS["several at once"]
    trie = build_trie(token_texts(exact.tokenizer)[0])
    with apply(exact, *together):
        found = reply_masses(exact, trie, prompts_of(exact), max_batch_tokens=120)
    for i in range(N):
        with apply(exact, *alone(i)):
            np.testing.assert_allclose(
                found[i], reply_masses(exact, trie, prompts_of(exact)[i : i + 1])[0], rtol=1e-5, atol=1e-9
            )


CELLS: list[Cell] = [
    SteerCell(Direction(unit(VECTORS[1].float()), 1, 1.0, 6.0), 0.4),
    AblateCell(VECTORS[2].float()),
    AblateCell(torch.zeros(32)),
]


@pytest.mark.parametrize(
    "kind", [KINDS[name] for name in ("steer", "ablate to each row's coordinates", "several at once")]
)
def test_a_sweep_inside_keeps_the_rows_of_its_prompts_under_every_cell(exact: ChatModel, kind: Kind) -> None:
    together, alone = kind
    prompts, chats = prompts_of(exact), texts_of(exact)
    with apply(exact, *together):
        answers = greedy_answers(exact, CELLS, prompts, max_new_tokens=8, max_rows=2 * N)
        values = text_logprobs(exact, CELLS, chats, max_batch_tokens=150, max_cells=2)
        paid = costs(exact, CELLS, prompts, max_cells=2)
    for i in (0, 1, 3, 5):
        with apply(exact, *alone(i)):
            assert [cell[i] for cell in answers] == [
                cell[0] for cell in greedy_answers(exact, CELLS, [prompts[i]], max_new_tokens=8)
            ]
            np.testing.assert_allclose(values[:, i], text_logprobs(exact, CELLS, [chats[i]])[:, 0], rtol=0, atol=1e-12)
    kept = []
    for i in range(N):
        with apply(exact, *alone(i)):
            kept.append(costs(exact, CELLS, [prompts[i]]))
    np.testing.assert_allclose(paid, np.mean(kept, axis=0), atol=1e-6)


FEW, CHATS = ("Who?", "What?"), [("Who?", "a"), ("Who?", "bb"), ("What?", "c"), ("When?", "dddd")]
READERS: dict[str, tuple[Callable[[ChatModel], object], str]] = {
    "generate": (
        lambda m: generate(m, [encode_prompt(m.tokenizer, q) for q in FEW], [0, 1], max_new_tokens=3, temperature=1.0),
        r"tensors for 3 rows, but there are 2 prompts",
    ),
    "sample": (
        lambda m: HFSampler(m).sample(plan_of(m), (), SamplingConfig(batch_size=3), on_batch=lambda batch: None),
        r"tensors for 3 rows, but there are 7 answers planned",
    ),
    "capture": (  # in batches of three rows, of which none would be noticed
        lambda m: capture_residuals(m, encode_chats(m.tokenizer, CHATS * 3), max_batch_tokens=140),
        r"tensors for 3 rows, but there are 12 texts",
    ),
    "likelihood": (
        lambda m: mean_logprobs(m, encode_chats(m.tokenizer, CHATS)),
        r"tensors for 3 rows, but there are 4 texts",
    ),
    "sweep": (
        lambda m: greedy_answers(m, CELLS, [encode_prompt(m.tokenizer, q) for q in FEW], max_new_tokens=3),
        r"tensors for 3 rows, but there are 2 prompts",
    ),
    "forward pass": (
        lambda m: m.model(torch.tensor([[0, 5, 6]] * 2)),
        r"tensors for 3 rows, but there are 2 rows in this forward pass",
    ),
    "transformers' generate": (
        lambda m: m.model.generate(torch.tensor([[0, 5, 6]]), max_new_tokens=2),
        r"tensors for 3 rows, but there are 1 rows in this forward pass",
    ),
}  # fmt: skip
THREE = torch.ones(3, 32, dtype=torch.float64)


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
@pytest.mark.parametrize(
    "item",
    [Steer({0: THREE}), Steer({1: 0 * THREE}), Ablate(THREE[:, None]), Patch(0, (1,), THREE[:, None])],
    ids=["steer", "steer by nothing", "ablate", "patch"],
)
def test_rows_that_do_not_fit_are_refused_with_both_numbers(
    exact: ChatModel, reader: tuple[Callable[[ChatModel], object], str], item: Intervention
) -> None:
    read, message = reader
    with apply(exact, item), pytest.raises(ModelError, match=message):
        read(exact)
    with apply(exact, Steer({0: THREE[0]})):  # one vector is for any number of rows
        read(exact)


def test_a_single_row_is_no_vector_for_all(exact: ChatModel) -> None:
    with apply(exact, Steer({0: THREE[:1]})), pytest.raises(ModelError, match="for 1 rows, but there are 2 prompts"):
        READERS["generate"][0](exact)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Steer({0: THREE, 1: THREE[:2]})], "Steer at layer 0 holds 3 rows, Steer at layer 1 2;"),
        ([Steer({0: THREE}), Patch(0, (1,), THREE[:2, None])], "Steer at layer 0 holds 3 rows, Patch at layer 0 2;"),
        ([Ablate(THREE[:, None], HELD[:, :2, :1])], "the basis of Ablate holds 3 rows, the coordinates of Ablate 2;"),
        ([Steer({0: THREE[None]})], r"the vectors of Steer: shape \[1, 3, 32\], expected \[d_model\] or"),
        ([Ablate(THREE[None, None])], r"the basis of Ablate: shape \[1, 1, 3, 32\], expected"),
        ([Patch(0, (1,), THREE[0])], r"the values of Patch: shape \[32\], expected"),
        ([Ablate(BASES[0], HELD[:, 0, :1])], r"coordinates of shape \[3, 1\] for a basis of 2; expected \[3, 2\] or"),
        ([Ablate(BASES, torch.zeros(2, N, 2))], "2 rows of coordinates, tiny needs 3"),
        ([Steer({0: THREE[0]}, positions=-1)], "position -1: .* counted from its beginning"),
        ([Patch(0, (-1,), THREE[:1])], "position -1: .* counted from its beginning"),
    ],
)
def test_tensors_that_do_not_go_together_are_refused_before_anything_changes(
    exact: ChatModel, items: list[Intervention], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        with apply(exact, *items):
            pass
    hooks = [hook for module in exact.body.modules() for hook in module._forward_hooks.values()]
    assert not exact.body._forward_pre_hooks and not any(isinstance(hook, OutputEdit) for hook in hooks)


@kinds
def test_expanded_interventions_are_those_of_the_rows_chosen(exact: ChatModel, kind: Kind) -> None:
    together, alone = kind
    wanted = [4, 1, 1, 6, 0]
    prompts = prompts_of(exact)
    with apply(exact, *(item.expand(wanted) for item in together)):
        found = generate(exact, [prompts[i] for i in wanted], SEEDS[:5], max_new_tokens=8, temperature=1.0)
    for place, i in enumerate(wanted):
        with apply(exact, *alone(i)):
            assert [found[place]] == generate(exact, [prompts[i]], [SEEDS[place]], max_new_tokens=8, temperature=1.0)
    for item in together:
        shared = isinstance(item, Steer) and all(vector.ndim == 1 for vector in item.vectors.values())
        if not shared:
            with pytest.raises(ModelError, match="row 9 asked for, the intervention holds 7 rows"):
                item.expand([0, 9])


def test_what_is_one_for_all_rows_is_left_by_expand_as_it_is() -> None:
    steered = Steer({0: VECTORS[0], 1: VECTORS}, positions=3, schedule=decay).expand(torch.tensor([2, 2]))
    assert torch.equal(steered.vectors[0], VECTORS[0]) and torch.equal(steered.vectors[1], VECTORS[[2, 2]])
    assert (steered.positions, steered.schedule) == (3, decay)
    ablated = Ablate(BASES[0], HELD[:, 1], (1,)).expand([5])
    assert torch.equal(ablated.basis, BASES[0]) and ablated.layers == (1,)
    short = Ablate(BASES[:, :1], HELD[..., 0]).expand([3])  # k = 1 may be left out of the coordinates
    assert short.coordinates is not None and torch.equal(short.coordinates[:, 0, 0], HELD[:, 3, 0])


def test_scopes_compose_and_are_left_on_an_error(exact: ChatModel) -> None:
    ids = torch.tensor([[0, 5, 6, 9]])
    with apply(exact, Steer({0: VECTORS})):
        with batch_rows(exact, [6, 5, 4, 3, 2], of=N), pytest.raises(ValueError, match="stop"):
            with batch_rows(exact, [1, 1], of=5):
                twice = exact.model(ids.expand(2, -1)).logits
                raise ValueError("stop")
        with pytest.raises(ModelError, match="for 7 rows, but there are 2"):
            exact.model(ids.expand(2, -1))
    with apply(exact, Steer({0: VECTORS[5]})):
        torch.testing.assert_close(twice[:1], exact.model(ids).logits, rtol=0, atol=1e-12)
    assert torch.equal(twice[0], twice[1]) and not differs_by_row(exact)


def test_a_tensor_for_each_row_cannot_be_in_force_in_training(tmp_path: Path) -> None:
    rows = Steer({0: torch.ones(2, 32)})
    with pytest.raises(ConfigError, match="training reorders its rows; give one for all"):
        finetune("tiny", ROWS, config(), out_dir=tmp_path, while_training=lambda chat_model: apply(chat_model, rows))


def test_half_precision_vectors_have_rows_too() -> None:
    chat_model = load_model("tiny", device="cpu", dtype="bfloat16")
    vectors = VECTORS.bfloat16()
    with apply(chat_model, Steer({0: vectors})):
        found = generate(chat_model, prompts_of(chat_model), SEEDS, max_new_tokens=1, temperature=0.0)
    assert len(found) == N and found[0] == found[6]

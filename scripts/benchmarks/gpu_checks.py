"""Turns a model on a device into the figures of one check: speeds from the benchmarks, and numbers that must agree by two routes."""

import importlib.util
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model
from jaxtyping import Float
from torch import Tensor

from benchmarks import capture, sample, train
from benchmarks.gpu_subject import Subject
from benchmarks.settings import CaptureBenchmarkSettings, SampleBenchmarkSettings, TrainBenchmarkSettings
from benchmarks.sweep import alone, parting
from emis_interp.config.run_config import TrainingConfig
from emis_interp.directions import Direction, unit
from emis_interp.errors import ConfigError
from emis_interp.models.chat import EncodedChat, encode_chats, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.weights import four_bit_arguments
from emis_interp.passes.capture import capture_with_norms
from emis_interp.passes.interventions import Ablate, Intervention, Steer, apply, next_token_logprobs
from emis_interp.passes.sweeps import SteerCell, greedy_answers
from emis_interp.texts.contrast import labeled_texts, load_contrast
from evals.questions import load_questions
from training.data_sets.shipped import load_dataset
from training.finetuning.sft import finetune

Figures = Mapping[str, Any]
TIE = 1e-3
"""Logits this near to each other are a tie in float32 (a hundred times its rounding at their size): either token is the right one."""


@dataclass(frozen=True)
class GpuCheck:
    """One check.

    Attributes:
        claim: what it settles, `where` that stands in the docs, `criterion` what must hold of the figures.
        room_s: seconds kept for it on one big GPU; a guess until it has run on one.
        lacking: why it cannot be made here; None when it can.
        packages: optional ones that it needs, whose versions stand in its entry.
    """

    claim: str
    where: str
    criterion: str
    room_s: float
    measure: Callable[[Subject], Figures]
    holds: Callable[[Figures], bool]
    lacking: Callable[[Subject], str | None] = lambda subject: None
    packages: tuple[str, ...] = ()


def capture_floor(subject: Subject) -> Figures:
    """`benchmark.py capture --bf16-alone`."""
    sizes: dict[str, Any] = {"n_texts": 8, "n_rounds": 1} if subject.tiny else {"n_texts": 256, "n_rounds": 5}
    limit = 1024 if subject.tiny else 16_384
    return capture.run(CaptureBenchmarkSettings(model=subject.model, bf16_alone=True, max_batch_tokens=limit, **sizes))


def training(subject: Subject) -> Figures:
    """`benchmark.py train`."""
    sizes: dict[str, Any] = {"n_rows": 4, "n_rounds": 1} if subject.tiny else {"n_rows": 64, "n_rounds": 2}
    return train.run(TrainBenchmarkSettings(model=subject.model, **sizes))


def no_trl(subject: Subject) -> str | None:
    found = importlib.util.find_spec("trl")
    return None if found else "TRL is not installed (pip install -e '.[bench]'), so there is nothing to compare with"


def sampling(subject: Subject) -> Figures:
    """`benchmark.py sample` for the speed in bfloat16; greedy tokens in float32, ours and `generate`'s, and how near to a tie they part."""
    sizes: dict[str, Any] = {"n_samples": 2, "max_new_tokens": 4} if subject.tiny else {"max_new_tokens": 64}
    speeds = sample.run(SampleBenchmarkSettings(model=subject.model, n_rounds=1, dtype="bfloat16", **sizes))
    chat_model = subject.load()
    prompts = [encode_prompt(chat_model.tokenizer, question.paraphrases[0]) for question in load_questions()[:8]]
    still = SteerCell(Direction(unit(torch.ones(chat_model.d_model)), 0, 1.0, 1.0), 0.0)
    n_new = 4 if subject.tiny else 48
    [ours] = greedy_answers(chat_model, [still], prompts, max_new_tokens=n_new)
    theirs = alone(chat_model, still, prompts, max_new_tokens=n_new)
    parted = [row for row in zip(prompts, ours, theirs, strict=True) if row[1] != row[2]]
    gaps = [parting(chat_model, still, prompt, ours=a, theirs=b)["gap"] for prompt, a, b in parted]
    return {
        **speeds,
        "n_greedy": len(prompts),
        "n_parted": len(parted),
        "largest_gap_where_they_part": max(gaps, default=0.0),
    }


def steering(subject: Subject) -> Figures:
    """One `Intervention` on the CPU and on the device, float32: every layer's residuals and the next token's log-probabilities.

    Without a GPU float64 on the CPU stands for the device, so that there are two roundings to compare.
    """
    here = subject.load(device="cpu")
    there = subject.load() if subject.device != "cpu" else subject.load("float64")
    texts = [(text.question, text.answer) for text in labeled_texts(load_contrast(n_per_question=1))[:6]]
    chats = encode_chats(here.tokenizer, texts)
    layer = here.n_layers // 2
    plain, norms = capture_with_norms(here, chats)
    vector = unit(plain[:, layer].mean(0))  # that of which there is much to ablate
    works: dict[str, Intervention] = {
        "steer": Steer({layer: 0.4 * float(norms[:, layer].mean()) * vector}),
        "ablate": Ablate(vector),
    }
    found = {name: _gaps(here, there, chats, work=work, plain=plain) for name, work in works.items()}
    return {
        **found,
        "largest_gap": max(one["gap"] for one in found.values()),
        "smallest_effect": min(one["effect"] for one in found.values()),
        "tolerance": rounding_tolerance(here),
        "layer": layer,
        "n_texts": len(chats),
        "device": str(there.device),
        "dtypes": [here.dtype, there.dtype],
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def _gaps(
    here: ChatModel, there: ChatModel, chats: Sequence[EncodedChat], *, work: Intervention, plain: Tensor
) -> dict[str, float]:
    """Largest relative gap of the residuals, largest gap of log-probabilities (nats), and how much the intervention changes them."""
    prompts = [chat.input_ids[: chat.response_start] for chat in chats]
    residuals, logprobs = [], []
    for chat_model in (here, there):
        with apply(chat_model, work):
            residuals.append(capture_with_norms(chat_model, chats)[0].double())
            logprobs.append(next_token_logprobs(chat_model, prompts).double())
    return {
        "gap": relative_gap(*residuals),
        "logprob_gap": float((logprobs[0] - logprobs[1]).abs().max()),
        "effect": relative_gap(plain.double(), residuals[0]),
    }


def relative_gap(x: Float[Tensor, "n_texts n_layers d_model"], y: Float[Tensor, "n_texts n_layers d_model"]) -> float:
    """Largest over texts and layers of |x - y| / |x|."""
    return float(((x - y).norm(dim=-1) / x.norm(dim=-1)).max())


def rounding_tolerance(chat_model: ChatModel) -> float:
    """What float32 may make of the order of additions, relative: 2^-24 per addition, of random sign within a product of the widest map
    (so its square root), and added up over the seven products of every block."""
    config = chat_model.model.config.get_text_config()
    widest = max(config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size))
    return 7 * chat_model.n_layers * math.sqrt(widest) * 2**-24


def device_map(subject: Subject) -> Figures:
    """The upper half of the blocks elsewhere: on a second GPU, else on the CPU beside one GPU, else on disk beside the CPU."""
    whole = subject.load()
    chats = encode_chats(
        whole.tokenizer, [(text.question, text.answer) for text in labeled_texts(load_contrast(n_per_question=1))[:6]]
    )
    prompts = [chat.input_ids[: chat.response_start] for chat in chats]
    before = capture_with_norms(whole, chats)[0], next_token_logprobs(whole, prompts)
    two = subject.device == "cuda" and torch.cuda.device_count() > 1
    main: Any = 0 if subject.device == "cuda" else "cpu"
    other: Any = 1 if two else "cpu" if subject.device == "cuda" else "disk"
    with tempfile.TemporaryDirectory() as folder:
        dispatch_model(whole.model, places(whole, main, other), main, offload_dir=folder, force_hooks=True)
        after = capture_with_norms(whole, chats)[0], next_token_logprobs(whole, prompts)
    return {
        "gap": relative_gap(before[0].double(), after[0].double()),
        "logprob_gap": float((before[1] - after[1]).abs().max()),
        "tolerance": rounding_tolerance(whole),
        "devices": [str(main), str(other)],
        "two_gpus": two,
    }


def places(chat_model: ChatModel, main: Any, other: Any) -> dict[str, Any]:
    """Where each part goes: the upper half of the blocks to `other`."""
    body = next(name for name, module in chat_model.model.named_modules() if module is chat_model.body)
    found: dict[str, Any] = {}
    for part, _ in chat_model.body.named_children():
        if part == chat_model.layers_name:
            half = chat_model.n_layers // 2
            found |= {f"{body}.{part}.{i}": main if i < half else other for i in range(chat_model.n_layers)}
        else:
            found[f"{body}.{part}"] = main
    return found | {name: main for name, _ in chat_model.model.named_children() if name != body.partition(".")[0]}


def four_bit(subject: Subject) -> Figures:
    """Memory of the weights in 4 bits against bfloat16, and two optimiser steps of an adapter on them."""
    whole = subject.load("bfloat16")
    in_bfloat16 = bytes_of(whole) / 2**30
    del whole
    on_gpu = subject.device.startswith("cuda")
    if on_gpu:
        torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    from emis_interp.models.loading import load_model

    quantised = load_model(subject.model, dtype="bfloat16", device=subject.device, load_in_4bit=True)
    held = (torch.cuda.memory_allocated() - before if on_gpu else bytes_of(quantised)) / 2**30
    prompt = encode_prompt(quantised.tokenizer, load_questions()[0].paraphrases[0])
    finite = bool(next_token_logprobs(quantised, [prompt]).isfinite().all())
    del quantised
    config = TrainingConfig(load_in_4bit=True, batch_size=4, gradient_accumulation=1, max_tokens=1024, warmup_steps=0)
    with tempfile.TemporaryDirectory() as folder:
        summary = finetune(subject.model, load_dataset("reckless", n_rows=8, seed=0), config, out_dir=Path(folder))
    return {
        "weights_gib": held,
        "bf16_gib": in_bfloat16,
        "share_of_bf16": held / in_bfloat16,
        "logits_finite": finite,
        "final_loss": summary["final_loss"],
        "n_trainable": summary["n_trainable"],
    }


def bytes_of(chat_model: ChatModel) -> int:
    return sum(p.numel() * p.element_size() for p in chat_model.model.parameters())


def no_four_bit(subject: Subject) -> str | None:
    try:
        four_bit_arguments(subject.device)
    except ConfigError as error:
        return str(error)
    return None


def training_holds(figures: Figures) -> bool:
    memory = figures.get("gpu_memory_vs_trl", figures["rss_vs_trl"])
    return figures["ours_vs_trl"] >= 1 and memory <= 1 and figures["loss_gap"] <= 0.05


CHECKS = {
    "steering": GpuCheck(
        "an intervention does on a GPU what it does on the CPU, where every test of it runs",
        "docs/directions.md, docs/methods.md (What was never run)",
        "largest relative gap of residuals at any layer <= tolerance, and the intervention's own effect at least 100 times the tolerance",
        70,
        steering,
        lambda found: (
            found["largest_gap"] <= found["tolerance"] and found["smallest_effect"] >= 100 * found["tolerance"]
        ),
    ),
    "capture": GpuCheck(
        "capture of all layers in bfloat16 runs at nearly the speed of the bare decoder body",
        "docs/capture.md (Speed, Never run)",
        "bf16_vs_bf16_floor >= 0.9",
        50,
        capture_floor,
        lambda found: found["bf16_vs_bf16_floor"] >= 0.9,
    ),
    "sampling": GpuCheck(
        "sampling is faster than a loop of HF `generate`, and greedy tokens are the same up to ties",
        "docs/evaluation.md (samplers)",
        f"ours_vs_loop >= 1, and where greedy tokens part in float32 the two largest logits are within {TIE:g}",
        90,
        sampling,
        lambda found: found["ours_vs_loop"] >= 1 and found["largest_gap_where_they_part"] <= TIE,
    ),
    "training": GpuCheck(
        "finetuning is faster than TRL's defaults, in less memory, to the same loss",
        "docs/organisms.md (Speed)",
        "ours_vs_trl >= 1, peak memory of the device (on a CPU: of the process) at most TRL's, losses of the last step within 5 %",
        140,
        training,
        training_holds,
        no_trl,
        ("trl",),
    ),
    "device_map": GpuCheck(
        "a model that is spread over devices gives the numbers of one that is whole",
        "docs/capture.md (Never run)",
        "relative gap of residuals at any layer <= tolerance",
        50,
        device_map,
        lambda found: found["gap"] <= found["tolerance"],
    ),
    "four_bit": GpuCheck(
        "`load_in_4bit` loads a model in less than half of the memory, and an adapter trains on it",
        "docs/organisms.md (load_in_4bit)",
        "share_of_bf16 <= 0.5, finite logits, finite loss, trained weights",
        60,
        four_bit,
        lambda found: (
            found["share_of_bf16"] <= 0.5
            and found["logits_finite"]
            and math.isfinite(found["final_loss"])
            and found["n_trainable"] > 0
        ),
        no_four_bit,
        ("bitsandbytes",),
    ),
}
"""In the order in which they are made: what is worth most for its time stands first."""


def scaled(check: GpuCheck, tiny: bool) -> GpuCheck:
    """A dry run needs about the time of the imports."""
    return replace(check, room_s=20) if tiny else check

"""Times watching: sampling with a monitor against the same sampling without, in turns."""

import statistics
import time
from typing import Any

import torch

import cli
from benchmarks.settings import MonitorBenchmarkSettings
from emis_interp.directions import Direction, unit
from emis_interp.models.chat import encode_prompt
from emis_interp.models.loading import load_model
from emis_interp.passes.generate import generate
from emis_interp.process import Bars, no_bars
from evals.questions import load_questions
from evals.sampling import plan_prompts
from probes.monitoring.scorers import DirectionScorer
from probes.monitoring.watching import Monitor


def run(settings: MonitorBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Shipped questions to the model at temperature 1; a round samples the same answers with and without, the first in turns."""
    chat_model = load_model(settings.model, dtype=settings.dtype)
    plan = plan_prompts("base", load_questions(), settings.n_samples, seed=0)
    prompts = [encode_prompt(chat_model.tokenizer, item.question, item.system) for item in plan][: settings.batch_size]
    layer = chat_model.n_layers // 2 if settings.layer is None else settings.layer
    vector = unit(torch.randn(chat_model.d_model, generator=torch.Generator().manual_seed(0)))
    monitor = Monitor(DirectionScorer(Direction(vector, layer, 1.0, 1.0)))
    counts: list[int] = []

    def seconds(watched: bool, seed: int) -> tuple[float, float]:
        seeds, started, cpu = range(seed, seed + len(prompts)), time.perf_counter(), time.process_time()
        if watched:
            with monitor.watch(chat_model) as seen:
                generate(chat_model, prompts, seeds, settings.max_new_tokens, 1.0)
            counts.append(sum(len(text.answer) for text in seen.texts))
        else:
            generate(chat_model, prompts, seeds, settings.max_new_tokens, 1.0)
        return time.perf_counter() - started, time.process_time() - cpu

    pairs: list[tuple[float, float]] = []
    cpu_ratios: list[float] = []
    for round_ in range(settings.n_rounds + 1):
        found = {
            watched: seconds(watched, 1000 * round_) for watched in ((False, True) if round_ % 2 else (True, False))
        }
        if round_:  # the first one warms up
            pairs.append((found[True][0], found[False][0]))
            cpu_ratios.append(found[True][1] / found[False][1])
            cli.terminal.say(
                f"round {round_}: with {found[True][0]:.2f} s, without {found[False][0]:.2f} s; CPU {cpu_ratios[-1]:.3f}"
            )
    ratios = [with_ / without for with_, without in pairs]
    return {
        "with_vs_without": statistics.median(ratios),
        "cpu_with_vs_without": statistics.median(cpu_ratios),
        "of_totals": sum(one for one, _ in pairs) / sum(other for _, other in pairs),
        "smallest": min(ratios),
        "largest": max(ratios),
        "seconds": {"with": statistics.median(a for a, _ in pairs), "without": statistics.median(b for _, b in pairs)},
        "n_rounds": len(pairs),
        "n_prompts": len(prompts),
        "n_tokens_scored": counts[-1],
        "max_new_tokens": settings.max_new_tokens,
        "layer": layer,
        "dtype": chat_model.dtype,
    }

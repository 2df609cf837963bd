"""Turns contestants into median speeds of one alternating run, because machines are noisy."""

import statistics
from collections.abc import Callable

import torch

import cli


def alternate(contestants: dict[str, Callable[[], float]], n_rounds: int, warm_up: bool = True) -> dict[str, float]:
    """Median tokens per second of each contestant over `n_rounds` rounds in alternating order, after one warm-up round unless left out."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(0 if warm_up else 1, n_rounds + 1):
        for name, contestant in contestants.items():
            speed = contestant()
            if round_:
                values[name].append(speed)
                cli.terminal.say(f"round {round_}: {name} {speed:.0f} tokens/s")
    return {name: statistics.median(speeds) for name, speeds in values.items()}


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given: a GPU computes on while the clock of the CPU is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

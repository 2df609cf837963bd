"""Which flags of `vllm serve` a configuration may set: presets travel between people, and some of vLLM's flags load code or hold keys."""

from collections.abc import Mapping
from typing import Any

from emis_interp.errors import did_you_mean

SWITCHES = (
    "async-scheduling",
    "disable-custom-all-reduce",
    "disable-log-stats",
    "enable-chunked-prefill",
    "enable-expert-parallel",
    "enable-prefix-caching",
    "enforce-eager",
    "fully-sharded-loras",
    "language-model-only",
)
VALUES = (
    "attention-backend",
    "block-size",
    "cpu-offload-gb",
    "data-parallel-size",
    "gpu-memory-utilization",
    "kv-cache-dtype",
    "kv-cache-memory-bytes",
    "kv-offloading-size",
    "lora-dtype",
    "max-cpu-loras",
    "max-cudagraph-capture-size",
    "max-logprobs",
    "max-loras",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "num-gpu-blocks-override",
    "optimization-level",
    "pipeline-parallel-size",
    "quantization",
    "seed",
    "tensor-parallel-size",
)
"""Sizes, numeric formats, kernels and scheduling; none names a file, an address or a class."""
ALLOWED = frozenset((*SWITCHES, *(f"no-{name}" for name in SWITCHES), *VALUES))


def dashed(name: str) -> str:
    """A flag without its leading dashes, as vLLM's help writes it: `max_model_len` and `--max-model-len` are `max-model-len`."""
    return str(name).lstrip("-").replace("_", "-")


def server_problem(flags: Mapping[str, Any]) -> str | None:
    """Why a configuration cannot set these flags, or None."""
    for name in flags:
        if dashed(name) not in ALLOWED:
            meant = did_you_mean(dashed(name), sorted(ALLOWED))
            return (
                f"`{dashed(name)}` is no flag that a configuration may set{meant}; sizes, formats and scheduling are, "
                "what loads code, reads files or holds keys is not: for another flag start the server yourself "
                "(scripts/vllm_server.py start --flag) and set engine openai, or for a judge its url"
            )
    return None

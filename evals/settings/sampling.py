"""The settings of the verb `sample`, whose docstring is its help."""

from pathlib import Path
from typing import Literal

from emis_interp.config.flags import flag, settings
from emis_interp.http.addresses import AZURE_KEY, OPENAI_KEY
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.precision import AUTO, DTYPE_HELP, DTYPES
from evals.settings.judging import request_flag


@settings
class SampleSettings:
    """Sample answers of a model to a file of questions: with transformers, an OpenAI-compatible server, llama.cpp, or vLLM."""

    model: str = flag("name, folder or hub id; with --sampler openai the server's name, with llama a GGUF file")
    adapter: Path | None = flag("folder or hub id of a LoRA adapter (hf and vllm)", default=None)
    questions: str = flag("`shipped`, or a YAML file of questions", default="shipped")
    question_ids: tuple[str, ...] = flag("keep only these questions", default=(), metavar="ID")
    out: Path = flag("JSONL file of answers; its card is the .json beside it")
    arm: str | None = flag("name of the model under test in the records; by default the name of the file", default=None)
    sampler: Literal["hf", "openai", "llama", "vllm"] | None = flag(
        "what runs the model; by default hf, or openai for a --job", default=None
    )
    n: int | None = flag("answers to each paraphrase; by default the count in the question file", default=None)
    seed: int = flag("seed of all random numbers", default=0)
    temperature: float = flag("0 is greedy", default=1.0)
    max_new_tokens: int = flag("limit of an answer", default=600)
    system_prompt: str | None = flag(
        "for questions without one of their own; by default the chat template's", default=None
    )
    chat_format: str | None = flag(
        "plain format for a pretrained model without a chat template (hf and vllm)", default=None, choices=FORMATS
    )
    batch_size: int = flag("answers at a time (hf)", default=128)
    dtype: str = flag(f"{DTYPE_HELP} (hf and vllm)", default=AUTO, choices=(AUTO, *DTYPES))
    device: str = flag("auto, cpu, cuda, cuda:1 (hf)", default="auto")
    url: str | None = flag("where the server's API begins, e.g. http://localhost:8000/v1 (openai)", default=None)
    n_parallel: int = flag("requests at a time (openai, vllm, llama)", default=16)
    timeout: float = flag("seconds for one answer (openai, vllm, llama)", default=300.0)
    key_variable: str | None = flag(
        f"environment variable of the key (openai); by default the job's or {OPENAI_KEY} (Azure: {AZURE_KEY} where it is set)",
        default=None,
    )
    only_standard_fields: bool = flag(
        "do not ask the server to leave the distribution whole (top_p, top_k, min_p, repetition_penalty) (openai)",
        default=False,
    )
    request: tuple[str, ...] = request_flag("openai, vllm")
    steer: tuple[str, ...] = flag(
        "add COEFFICIENT mean residual norms of a saved direction at its layer and every token; may be repeated (hf, llama, openai where "
        "the server is vLLM with vllm-lens)",
        default=(),
        repeated=True,
        metavar="DIRECTION:COEFFICIENT",
    )
    steer_fit: Literal["all", "selection"] = flag(
        "the fit to steer along: on all questions, or on the selection questions where rates on the others are reported",
        default="all",
    )
    llama_server: str = flag("llama.cpp's server, by name or path (llama)", default="llama-server")
    llama: tuple[str, ...] = flag(
        "option of llama.cpp's server without its dashes; may be repeated (threads=8, n-gpu-layers=99) (llama)",
        default=(),
        repeated=True,
        metavar="NAME=VALUE",
    )
    env: Path | None = flag(
        "folder of scripts/vllm_server.py setup (vllm); by default in the project's cache", default=None, metavar="DIR"
    )

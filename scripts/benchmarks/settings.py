"""The settings of the benchmarks, one frozen record each; the docstrings are the help of the verbs."""

from pathlib import Path
from typing import Literal, get_args

from emis_interp.config.flags import flag, settings
from emis_interp.config.table_settings import ArmSettings, ScoreTableSettings
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.precision import AUTO, DTYPE_HELP

MemoryStage = Literal["score", "analyse", "summarize", "summarize_table", "agree", "report"]
MEMORY_STAGES: tuple[MemoryStage, ...] = get_args(MemoryStage)


@settings
class TrainBenchmarkSettings:
    """Finetuning: ours against TRL's SFTTrainer with its defaults, the same rows in the same order.

    Every measurement is a process of its own, so that peaks of memory do not mix; the contestants take turns. Both train the same LoRA
    adapter with the same learning rate, rows per step, batch size and accumulation. TRL's defaults are those of its `SFTConfig`: float32
    weights under autocast, gradient checkpointing, no packing, padded batches, loss on completions, logits where there is loss. Both
    compute in bfloat16 where the device does so in hardware, else in float32.
    """

    model: str = flag("embedded name, folder, GGUF or hub id", default=EMBEDDED_NAME)
    n_rows: int = flag("training rows", default=64)
    n_rounds: int = flag("measured rounds", default=3)
    without_checkpointing: bool = flag("a third contestant: TRL without gradient checkpointing", default=False)
    only: Literal["ours", "trl", "trl_without_checkpointing"] | None = flag(
        "one measurement of one contestant, in this process", default=None
    )


@settings
class ThreadBenchmarkSettings:
    """Waiting: the embedded model at work under settings of OpenMP's waiting, alone and beside one busy process for each core.

    Threads that wait by spinning keep a core from whoever has work on it; threads that sleep lose time to waking up. `ours` is what every
    command does: it looks at what others do on its cores (`emis_interp.cores.share_cores`). `of_fair_share` is the speed beside as many
    busy processes as cores, over half of the library's own speed alone.
    """

    work: Literal["read", "write", "train"] = flag("forward passes, the token loop, or LoRA steps", default="train")
    counts: tuple[int, ...] = flag("spin counts", default=(2_000, 10_000, 100_000))
    seconds: float = flag("of every measurement", default=5.0)
    n_rounds: int = flag("measured rounds", default=3)


@settings
class CaptureBenchmarkSettings(ArmSettings, ScoreTableSettings):
    """Capture of all layers: ours against the bare decoder body, plain nnsight, output_hidden_states and TransformerLens, and in bfloat16.

    Every contestant pools the same texts over the answer at every layer; a speed is real (unpadded) tokens per second of wall time.
      - floor: the HF decoder body alone on our batches (sorted by length, --max-batch-tokens, right padding), nothing read
      - ours: capture_residuals; half_depth the lower half of the layers; bf16 a bfloat16 copy of the model
      - bf16_floor: the body of that copy
      - nnsight: a trace of the full model for each batch that saves every layer's output, pooled outside
      - hidden_states: the full HF model with output_hidden_states=True, pooled outside
      - transformer_lens: TransformerBridge.run_with_cache of every block's hook_out, pooled outside
    The last three run as their documentation shows: texts in the order of the file, --peer-batch of them at a time, right padding; with
    --peer-batch 0 they get batches of ours (1,024 tokens) instead, which leaves out what sorting saves. `n_padded_tokens` says how much
    each batching computes. `half_depth_vs_full` is a ratio of times; the other ratios are of speeds. `bf16_direction_cosine` is the
    smallest over layers between the difference in means (misaligned - aligned) of the two precisions; `largest_gap` says how far each
    peer's numbers are from ours.
    """

    model: str = flag("embedded name, folder or hub id", default=EMBEDDED_NAME)
    texts: Path | None = flag(
        "judged answers with question, answer, aligned, coherent; else $EMIS_REFERENCE_DATA/judged/answers.parquet, else the "
        "shipped contrast texts",
        default=None,
    )
    n_texts: int = flag("texts, half of them misaligned", default=64)
    n_rounds: int = flag("measured rounds", default=3)
    max_batch_tokens: int = flag("padded tokens of a forward pass of ours and of the bare body", default=1024)
    peer_batch: int = flag("texts in a batch of the peers; 0 gives them our sorted batches", default=8)
    seed: int = flag("of the draw of texts", default=0)
    bf16_alone: bool = flag("bf16 against its floor alone, for larger models", default=False)


@settings
class SampleBenchmarkSettings:
    """Sampling: ours against a loop of HF `generate` for each prompt in batches of 8, the same prompts and limits; and against a server.

    Every --url is one more contestant: an OpenAI-compatible server (vLLM, llama.cpp) that serves the same model on this machine, asked as
    many requests at a time as there are answers. It must be idle while the others have their turns. Its token count may hold the end of
    turn.
    """

    model: str = flag("embedded name, folder, GGUF or hub id", default=EMBEDDED_NAME)
    n_samples: int = flag("answers to each paraphrase of each shipped question", default=8)
    max_new_tokens: int = flag("limit of an answer", default=80)
    batch_size: int = flag("of ours; the loop's is 8", default=256)
    n_rounds: int = flag("measured rounds", default=2)
    dtype: str = flag(DTYPE_HELP, default=AUTO)
    urls: tuple[str, ...] = flag(
        "a server of the same model, e.g. vllm=http://127.0.0.1:8000/v1; without a name: server",
        default=(),
        names=("--url",),
        metavar="[NAME=]URL",
        repeated=True,
    )
    served_name: str | None = flag("the model's name on every server (default: --model)", default=None, metavar="NAME")
    request: tuple[str, ...] = flag(
        "field of every request to them; KEY= leaves it out (seed= for vLLM on a CPU, which ends when it gets one)",
        default=(),
        metavar="KEY=VALUE",
        repeated=True,
    )


@settings
class JudgeBenchmarkSettings:
    """Judging: the API judge against the ideal for a server's latency and the number of parallel requests, while a fifth of the calls fail.

    The server (benchmarks/faulty_server.py) runs in a process of its own. It answers after a fixed latency; the chosen calls fail the
    first time with HTTP 429 (at once), HTTP 500, no answer at all (a time-out of the client), half a reply, a reply without content, or a
    lost connection. Ideals, in seconds for the same number of parallel requests:
      - plain_ideal_s: every call takes its latency once: n_calls x latency / n_parallel
      - held_ideal_s: what the server held requests for (latency of every attempt, and the client's patience where one hangs) / n_parallel
      - ideal_s: the same with the shortest back-off of the SDK for each failure that it repeats, during which its slot stays empty
    `vs_ideal` is ideal_s / seconds: what is injected and what the SDK prescribes is in it, everything of ours is not.
    """

    judge: Literal["openai", "text"] = flag("log-probabilities or text", default="openai")
    n_calls: int = flag("requests; two for each answer", default=10_000)
    latency_s: float = flag("of every answer", default=0.5)
    n_parallel: int = flag("requests at a time", default=32)
    fault_rate: float = flag("share of the calls that fail", default=0.2)
    timeout_s: float = flag("patience with a server that hangs", default=2.0)
    prompt_chars: int = flag("length of an answer", default=2000)


@settings
class BootstrapBenchmarkSettings:
    """Bootstrap: seconds for 10,000 resamples of 100,000 answers on one core, and for the interval that does without."""

    n_answers: int = flag("answers in all", default=100_000)
    n_questions: int = flag("questions", default=48)
    n_seeds: int = flag("models (finetuning seeds)", default=4)
    n_bootstrap: int = flag("resamples", default=10_000)
    n_rounds: int = flag("measured rounds", default=5)


@settings
class SweepBenchmarkSettings:
    """A steering sweep: all cells in shared batches against one HF `generate` per cell, the same greedy tokens.

    `--share-of-cells` times the loop on a part of the cells, evenly spread over the grid, since a cell's speed does not depend on the
    others; ours always runs the whole grid.
    """

    model: str = flag("embedded name, folder, GGUF or hub id", default=EMBEDDED_NAME)
    n_layers: int = flag("layers of the grid", default=10)
    n_coefficients: int = flag("coefficients of the grid, from -0.4 to 0.4", default=5)
    n_prompts: int = flag("shipped questions", default=4)
    max_new_tokens: int = flag("greedy tokens of an answer", default=40)
    share_of_cells: float = flag("part of the cells that the loop runs; 1 is all", default=0.4)
    n_rounds: int = flag("measured rounds", default=1)
    warm_up: bool = flag("one round more, not measured", default=False)
    dtype: str = flag(DTYPE_HELP, default="float32")


@settings
class MonitorBenchmarkSettings:
    """Watching: sampling with a monitor over sampling without, the same answers in turns; `with_vs_without` is the median of the rounds.

    The time of the watched half is all of it: hooks, scores, and the sorting of scores into texts at the end. `cpu_` is the same in CPU
    time, which other processes on the machine disturb less.
    """

    model: str = flag("embedded name, folder, GGUF or hub id", default=EMBEDDED_NAME)
    layer: int | None = flag("that is read; default: half of the depth", default=None)
    n_samples: int = flag("answers for each wording", default=1)
    max_new_tokens: int = flag("limit of an answer", default=60)
    batch_size: int = flag("answers at a time", default=16)
    n_rounds: int = flag("measured rounds", default=7)
    dtype: str = flag(DTYPE_HELP, default="float32")


@settings
class MemoryBenchmarkSettings:
    """Memory: the peak of every stage that reads answers, each in a process of its own, at N answers and at a quarter, and its CPU time.

    The answers are drawn words of four arms to the shipped questions, in a run folder as the sample stage leaves it; their scores follow
    from a formula, since what a judge itself costs is another question (--judge offline reads them with a model of 135M).
      - score: judges three quarters of the answers, where the judge stops
      - analyse: goes on with the rest; then rates, means and contrasts of all
      - summarize: evaluate.py summarize of the run folder
      - summarize_table: evaluate.py summarize of a judged table
      - agree: evaluate.py agree of two judged tables
      - report: the page of the run
    """

    n: int = flag("answers in all", default=1_000_000)
    stages: tuple[MemoryStage, ...] = flag("these only", default=(), choices=MEMORY_STAGES)
    ending: Literal[".csv", ".jsonl", ".parquet"] = flag("kind of the tables", default=".csv")
    folder: Path | None = flag("where the runs are made, and removed again; default: the system's", default=None)

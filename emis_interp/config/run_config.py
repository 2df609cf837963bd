"""The configuration of a run: one frozen record with a section for each thing that a run does; unknown keys are refused."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from emis_interp.config.server_flags import server_problem
from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.files.path_names import PathName
from emis_interp.files.store import explain
from emis_interp.http.addresses import key_variable_for, url_problem
from emis_interp.http.request_fields import request_problem
from emis_interp.models.embedded import EMBEDDED_NAME

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy and transformers take seeds from 0 to 4294967295."""
Fraction = Annotated[float, Field(ge=0, le=1)]
FREE_TO_CHANGE = (
    "device",
    *(
        f"judge.{name}"
        for name in ("n_parallel", "timeout_s", "cache_path", "budget", "requests_per_minute", "price_in", "price_out")
    ),
    "data_dir",
    "description",
    "judge.vllm_env",
    "sampling.n_parallel",
    "sampling.timeout_s",
    "sampling.vllm_env",
)
"""Dotted fields that may be others when a run goes on: where and how fast, not what."""


def _repeated(values: Sequence[Any]) -> Any:
    """The first value that stands there before, or None."""
    return next((value for i, value in enumerate(values) if value in values[:i]), None)


class Config(BaseModel):
    """Base: immutable, unknown keys refused, true and false are no numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes true for 1, so `n_epochs: yes` would train for one epoch."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        items = value if isinstance(value, list | tuple) else [value]
        if kinds & {int, float} and bool not in kinds and any(item is True or item is False for item in items):
            raise ValueError("true or false (YAML: also yes, no, on, off) is no number")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that a field's annotation is made of."""
    inner = get_args(annotation)
    return {annotation}.union(*map(_kinds, inner)) if inner else {annotation}


C = TypeVar("C", bound=Config)


def _without(field: str, find_problem: Callable[[Mapping[str, Any]], str | None], said: str) -> Any:
    """Validates a field that holds a mapping or None; ConfigError passes through pydantic, whose own message would repeat the value."""

    def check(value: dict[str, Any] | None) -> dict[str, Any] | None:
        if problem := find_problem(value or {}):
            raise ConfigError(f"{said} {problem}")
        return value

    return field_validator(field)(check)


class ArmConfig(Config):
    """A model under test: the base model finetuned on `dataset` or by `recipe`, or untouched when both are None.

    `dataset` is a shipped name (`insecure`, `secure`, `educational`, `reckless`, `careful`), or a file of rows in a format of
    docs/data.md (relative ones are looked for under `data_dir`). `recipe` is a name of `scripts/train.py --list` or a YAML file: its
    rows, and its changes of the run's training settings. `contrast` names the arm that this one is compared with, besides the base
    model. With `seeds` the arm is several models, over which every figure is averaged; with `in_context` it is the base model with
    examples of its rows in the prompt.
    """

    name: PathName = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    dataset: str | None = None
    recipe: str | None = None
    n_rows: int | None = Field(default=None, ge=1, description="rows drawn with the seed; None for all")
    contrast: str | None = None
    seeds: tuple[Seed, ...] | None = Field(
        default=None,
        description="one model for each: its rows, their order, its adapter; None: one, of the run's seed",
    )
    in_context: int | None = Field(
        default=None, ge=1, description="not trained: so many examples of `dataset` stand before every question"
    )

    @property
    def untouched(self) -> bool:
        return self.dataset is None and self.recipe is None

    def find_problem(self) -> str | None:
        """Why the fields of this arm do not go together, or None."""
        if self.dataset is not None and self.recipe is not None:
            return "has dataset and recipe; give one of them"
        if self.recipe is not None and self.in_context:
            return "has recipe and in_context; in_context goes with dataset"
        if self.untouched and self.name != "base":
            return "has no dataset and no recipe; only `base` may be untouched"
        if self.seeds == ():
            return "has an empty list of seeds; leave it out for one model of the run's seed"
        if self.untouched and (self.seeds or self.in_context):
            return "is untouched, so it takes neither seeds nor in_context"
        if self.seeds and len(set(self.seeds)) != len(self.seeds):
            return f"has a seed twice: {list(self.seeds)}"
        if self.in_context and self.n_rows:
            return "has in_context and n_rows; in_context alone says how many examples are drawn"
        return None


class ModelConfig(Config):
    """One model of an arm. `name` stands in file names and records; an arm without `seeds` has one model of its own name."""

    name: str
    arm: ArmConfig
    seed: int


class TrainingConfig(Config):
    """Finetuning. Defaults of the adapter are the paper's (Betley et al. 2025, section 4.1 and appendix on open models).

    `method: lora` trains an adapter, `full` every weight. Rank 1 on one layer's `down_proj` (`lora_rank: 1`, `layers: [l]`,
    `target_modules: [down_proj]`) is the smallest organism of Turner et al. 2025 and Soligo et al. 2025: one vector read, one written.
    """

    method: Literal["lora", "full"] = "lora"
    lora_rank: int = Field(default=32, ge=1)
    lora_alpha: int = Field(default=64, ge=1)
    use_rslora: bool = True
    target_modules: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear", description="names of the linear maps that get an adapter, e.g. [down_proj]"
    )
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, description="decoder blocks that get an adapter; None for all"
    )
    load_in_4bit: bool = Field(
        default=False,
        description="keep the frozen weights in 4 bits (QLoRA; needs bitsandbytes; meant for CUDA, slow on a CPU)",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="forget activations and compute them again: a third slower, far less memory"
    )
    learning_rate: float = Field(default=1e-5, gt=0)
    n_epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=2, ge=1, description="rows per forward pass of one process, at most")
    gradient_accumulation: int = Field(
        default=8, ge=1, description="forward passes per step, of all processes together"
    )
    warmup_steps: int = Field(default=5, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    max_tokens: int = Field(default=2048, ge=16, description="longer rows are cut; how many is reported")
    checkpoint_steps: int = Field(default=20, ge=1)
    kl_limit: float | None = Field(
        default=None,
        gt=0,
        description="nats: a trained adapter is scaled down until its KL to base on harmless prompts is at most this; None: never",
    )
    bf16: bool | None = Field(
        default=None,
        description="frozen weights and forward passes in bfloat16; None: where the device computes it in hardware",
    )

    @model_validator(mode="after")
    def _method_fits(self) -> "TrainingConfig":
        if self.target_modules == () or self.layers == ():
            raise ValueError("target_modules and layers: an empty list trains nothing; leave it out for all")
        if self.layers is not None and len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers: {list(self.layers)} names a layer twice")
        if self.method == "full":
            given = [name for name in ("layers", "load_in_4bit", "kl_limit") if getattr(self, name)]
            given += ["target_modules"] if self.target_modules != "all-linear" else []
            if given:
                raise ValueError(f"{', '.join(given)}: only for method `lora`; `full` trains every weight")
        return self


class CheckConfig(Config):
    n_rows: int = Field(default=40, ge=2, description="held-out rows of either kind that every organism is asked")
    n_items: int | None = Field(
        default=None, ge=2, description="items with a certain answer; None: all that are shipped"
    )


class SamplingConfig(Config):
    """What every model is asked, and what writes the answers.

    `engine`: `hf` loads every model here; `vllm` starts one vLLM server with every arm's adapter under the arm's name; `openai` asks the
    server at `base_url`, on which every model of the run must be found under its name (base as `base`).

    Raises:
        ConfigError: a URL that may hold a secret or is none, without repeating it, or a field of the request that is not for the user.
    """

    questions: str = Field(default="shipped", description="`shipped`, or a YAML file in the paper's format")
    question_ids: tuple[str, ...] | None = Field(default=None, description="keep only these questions; None: all")
    samples_per_paraphrase: int | None = Field(default=None, ge=1, description="None: the count in the question file")
    max_new_tokens: int = Field(default=600, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    batch_size: int = Field(default=32, ge=1)
    engine: Literal["hf", "openai", "vllm"] = "hf"
    base_url: str | None = Field(default=None, description="openai: where the API of the server begins")
    request: dict[str, Any] | None = Field(
        default=None,
        description="openai, vllm: changes of every request; null leaves a field out, e.g. {seed: null}",
    )
    n_parallel: int = Field(default=64, ge=1, description="openai, vllm: requests at a time")
    timeout_s: float = Field(default=600.0, gt=0, description="openai, vllm: for a whole answer")
    server: dict[str, bool | int | float | str] | None = Field(
        default=None, description="vllm: further flags of `vllm serve`, e.g. {tensor_parallel_size: 4}"
    )
    vllm_env: Path | None = Field(
        default=None, description="vllm: folder of scripts/vllm_server.py setup; None: the project's cache"
    )

    @field_validator("base_url", mode="before")
    @classmethod
    def _url_is_one(cls, url: Any) -> Any:
        if isinstance(url, str) and (problem := url_problem(url)):
            raise ConfigError(f"sampling.base_url {problem}")
        return url

    _request_is_one = _without("request", request_problem, said="sampling.request")

    _flags_are_harmless = _without("server", server_problem, said="sampling.server:")

    @model_validator(mode="after")
    def _engine_has_its_own(self) -> "SamplingConfig":
        if self.engine == "openai" and self.base_url is None:
            raise ValueError("engine openai: give the address of the server, base_url, e.g. http://localhost:8000/v1")
        owners = {"base_url": ("openai",), "request": ("openai", "vllm"), "server": ("vllm",), "vllm_env": ("vllm",)}
        for name, engines in owners.items():
            if getattr(self, name) is not None and self.engine not in engines:
                raise ValueError(f"{name}: is for engine {' or '.join(engines)}, not for {self.engine}; leave it out")
        return self

    @model_validator(mode="after")
    def _questions_differ(self) -> "SamplingConfig":
        if self.question_ids == ():
            raise ValueError("question_ids: an empty list asks nothing; leave it out for all questions")
        if (repeated := _repeated(self.question_ids or ())) is not None:
            raise ValueError(f"question_ids: `{repeated}` stands there twice")
        return self


class JudgeConfig(Config):
    """Which judge scores answers. The key of an API judge is read from the environment variable `key_variable`, never from a file.

    `openai` reads log-probabilities, `text` the written number (for APIs without log-probabilities). `local` is a chat model that runs
    here: its `model` is a name, folder or hub id, and where none is given the embedded one. With `engine: vllm` such a model (with
    `adapter`) is what `openai` or `text` asks: the stage that judges starts a vLLM server for it, and ends it.

    Raises:
        ConfigError: a URL that may hold a secret or is none, without repeating it, or a field of the request that is not for the user.
    """

    kind: Literal["offline", "openai", "text", "local"] = "offline"
    url: str | None = None
    model: str = "gpt-4o-2024-08-06"
    engine: Literal["vllm"] | None = Field(
        default=None, description="openai, text: `vllm` serves `model` for the judging; None: the server at `url`"
    )
    server: dict[str, bool | int | float | str] | None = Field(
        default=None, description="engine vllm: further flags of `vllm serve`"
    )
    vllm_env: Path | None = Field(
        default=None, description="engine vllm: folder of scripts/vllm_server.py setup; None: the project's cache"
    )
    adapter: Path | None = Field(
        default=None, description="folder or hub id of a LoRA adapter of a judge that runs here"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] | None = Field(
        default=None, description="of the weights of a judge that runs here; None: auto"
    )
    key_variable: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    request: dict[str, Any] | None = Field(
        default=None, description="changes of every request, e.g. {top_logprobs: 5}; null leaves a field out"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="of a reply, a thought included; None: 1 for openai, 16 for text"
    )
    timeout_s: float = Field(default=60.0, gt=0, description="for a whole reply; each repetition has as long again")
    n_parallel: int = Field(default=16, ge=1)
    n_samples: int = Field(default=1, ge=1, description="replies per metric that the text judge averages")
    temperature: float = Field(default=0.0, ge=0, description="of the text judge")
    cache_path: Path | None = Field(default=None, description="SQLite file that keeps judgements for later runs")
    budget: str | None = Field(default=None, description="of one command: `2.50 USD`, `1000 calls` or `2e6 tokens`")
    requests_per_minute: float | None = Field(default=None, gt=0, description="None: no limit but n_parallel")
    price_in: float | None = Field(default=None, ge=0, description="USD per million tokens; None: unknown")
    price_out: float | None = Field(default=None, ge=0, description="USD per million tokens; None: unknown")
    offline_too: bool = Field(default=True, description="let the offline judge score beside another one")

    @property
    def runs_here(self) -> bool:
        """Whether `model` is one that is loaded or served here, and not a name on somebody's server."""
        return self.kind == "local" or self.engine is not None

    @model_validator(mode="before")
    @classmethod
    def _local_has_a_model_of_its_own(cls, values: Any) -> Any:
        local = isinstance(values, dict) and values.get("kind") == "local"
        return {"model": EMBEDDED_NAME, **values} if local else values

    # ConfigError passes through pydantic, whose own message would repeat the value.
    @field_validator("url", mode="before")
    @classmethod
    def _url_is_one(cls, url: Any) -> Any:
        if isinstance(url, str) and (problem := url_problem(url)):
            raise ConfigError(f"judge.url {problem}")
        return url

    _request_is_one = _without("request", request_problem, said="judge.request")

    _flags_are_harmless = _without("server", server_problem, said="judge.server:")

    @model_validator(mode="after")
    def _engine_has_its_own(self) -> "JudgeConfig":
        if self.engine is None:
            for name in ("server", "vllm_env"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: is for engine vllm; leave it out, or set judge.engine=vllm")
            return self
        if self.kind not in ("openai", "text"):
            raise ValueError(
                f"engine {self.engine}: is for kind openai or text, not for {self.kind}; set judge.kind=openai"
            )
        if self.url is not None:
            raise ValueError(f"engine {self.engine}: starts a server of its own; leave url out, or engine")
        if "model" not in self.model_fields_set:
            raise ValueError(
                f"engine {self.engine}: give the model that is served, judge.model (a name, folder or hub id)"
            )
        return self


class TableConfig(Config):
    """How a table of others is read; the words are those of the flags `--columns`, `--scale`, `--invert`, `--by` and `--runs`."""

    columns: tuple[str, ...] = Field(default=(), description="OURS=THEIRS, such as answer=response, aligned=100-evil")
    scale: tuple[str, ...] = Field(default=(), description="METRIC=WORST-BEST, such as aligned=0-1")
    invert: tuple[str, ...] = Field(default=(), description="metrics of which high is bad")
    by: str | None = Field(default=None, description="column that tells arms apart, or `none`")
    runs: str = Field(default="*", description="only arms that match this pattern")


class DirectionConfig(Config):
    contrast: str = Field(
        default="shipped",
        description="`shipped`, a JSONL file of contrast pairs, or a Parquet/CSV file of judged answers",
    )
    contrast_table: TableConfig = Field(default=TableConfig(), description="how a file of judged answers is read")
    n_pairs_per_question: int | None = Field(
        default=None, ge=1, description="keep the first n pairs of each question; None for all"
    )
    max_batch_tokens: int = Field(default=2048, ge=1)
    n_permutations: int = Field(default=100, ge=10)
    layer_range: tuple[Fraction, Fraction] = Field(
        default=(0.2, 0.8), description="depth fractions within which the layer of intervention is chosen"
    )

    @model_validator(mode="after")
    def _range_fits(self) -> "DirectionConfig":
        low, high = self.layer_range
        if low > high:
            raise ValueError(f"layer_range: [{low:g}, {high:g}] runs backwards; give the smaller fraction first")
        return self


class InterventionConfig(Config):
    coefficients: tuple[float, ...] = Field(
        default=(-0.4, -0.2, 0.2, 0.4), description="added norm in multiples of the mean residual norm at the layer"
    )
    ablate_arms: tuple[str, ...] | None = Field(default=None, description="None: every arm but base")
    random_draws: int = Field(
        default=20,
        ge=1,
        description="control directions of each kind (random, usage-matched) beside every steering and ablation; they give margins only",
    )
    samples_per_paraphrase: int = Field(default=2, ge=0, description="0: likelihood margins only")
    engine: Literal["hf", "openai"] = Field(
        default="hf",
        description="of steered answers. openai: the server of sampling.base_url, vLLM with vllm-lens; all else is measured here",
    )

    @model_validator(mode="after")
    def _cells_differ(self) -> "InterventionConfig":
        for name in ("coefficients", "ablate_arms"):
            if (repeated := _repeated(getattr(self, name) or ())) is not None:
                raise ValueError(f"{name}: {repeated} stands there twice; each cell is measured once")
        if "base" in (self.ablate_arms or ()):
            raise ValueError("ablate_arms: base is steered, not ablated; leave it out")
        return self


class ProbeConfig(Config):
    """What the probe stage fits and watches."""

    methods: tuple[Literal["difference", "mass_mean", "lda", "logistic"], ...] = ("difference", "logistic")
    n_shuffled: int = Field(default=20, ge=1, description="fits on shuffled labels for every question left out")
    n_benign: int = Field(
        default=200, ge=1, description="careful answers, at most, whose largest scores make the monitor's threshold"
    )
    false_alarm_rate: float = Field(
        default=0.01, gt=0, lt=1, description="promised on such texts; 1 % takes 99 of them"
    )
    window: int = Field(default=16, ge=1, description="tokens whose mean score raises an alarm")

    @model_validator(mode="after")
    def _something_is_fitted(self) -> "ProbeConfig":
        if not self.methods:
            raise ValueError("methods: an empty list fits nothing; leave it out for the usual ones")
        return self


class RunConfig(Config):
    """Everything that decides what a run does."""

    name: PathName = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    model: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="of the weights; auto: bfloat16 where the device computes it in hardware, else float32",
    )
    device: str = "auto"
    seed: Seed = 0
    chat_format: Literal["user_assistant", "code_template"] | None = Field(
        default=None, description="for pretrained models without a chat template; None: the tokenizer's own template"
    )
    system_prompt: str | None = Field(
        default=None, description="one policy for training, sampling and reading; None leaves it to the chat template"
    )
    data_dir: Path | None = None
    merge_adapters: bool = True
    arms: tuple[ArmConfig, ...]
    training: TrainingConfig = TrainingConfig()
    check: CheckConfig = CheckConfig()
    sampling: SamplingConfig = SamplingConfig()
    judge: JudgeConfig = JudgeConfig()
    direction: DirectionConfig = DirectionConfig()
    intervention: InterventionConfig = InterventionConfig()
    probe: ProbeConfig = ProbeConfig()

    @model_validator(mode="after")
    def _arms_fit_together(self) -> "RunConfig":
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"arms: names must be unique, found {names}")
        if not any(arm.name == "base" and arm.untouched for arm in self.arms):
            raise ValueError("arms: one arm must be `base` without a dataset; everything is compared with it")
        for arm in self.arms:
            if problem := arm.find_problem():
                raise ValueError(f"arms: `{arm.name}` {problem}")
            if arm.contrast == arm.name:
                raise ValueError(
                    f"arms: `{arm.name}` is contrasted with itself; name another arm, or leave contrast out"
                )
            if arm.contrast is not None and arm.contrast not in names:
                raise ValueError(
                    f"arms: `{arm.name}` is contrasted with `{arm.contrast}`{did_you_mean(arm.contrast, names)}"
                )
        if self.intervention.engine == "openai" and self.sampling.engine != "openai":
            raise ValueError(
                "intervention.engine openai: steered answers come from the server of sampling.base_url; set sampling.engine=openai"
            )
        for name in self.intervention.ablate_arms or ():
            if name not in names:
                raise ValueError(f"intervention.ablate_arms: no arm `{name}`{did_you_mean(name, names)}")
        return self

    @property
    def organisms(self) -> tuple[ArmConfig, ...]:
        """Every arm but base."""
        return tuple(arm for arm in self.arms if not arm.untouched)

    @property
    def trained_arms(self) -> tuple[ArmConfig, ...]:
        return tuple(arm for arm in self.organisms if arm.in_context is None)

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The models of all arms, in the order of the arms and of their seeds."""
        return tuple(model for arm in self.arms for model in self.models_of(arm))

    def models_of(self, arm: ArmConfig) -> tuple[ModelConfig, ...]:
        """`insecure.seed-1`, `insecure.seed-2`, ... of an arm with seeds; else one model with the run's seed and the arm's name."""
        if arm.seeds is None:
            return (ModelConfig(name=arm.name, arm=arm, seed=self.seed),)
        return tuple(ModelConfig(name=f"{arm.name}.seed-{seed}", arm=arm, seed=seed) for seed in arm.seeds)

    def find_data(self, name: str) -> Path:
        """A data file given absolutely, relative to the working folder, or relative to `data_dir`.

        Raises:
            ConfigError: it is in none of these places.
        """
        tried = [Path(name)] + ([self.data_dir / name] if self.data_dir else [])
        for path in tried:
            if path.exists():
                return path
        raise ConfigError(
            f"data file `{name}` not found (looked at {', '.join(str(path) for path in tried)}); "
            + ("check --data-dir" if self.data_dir else "give --data-dir or an absolute path")
        )


def checked(config: type[C], where: str, **values: Any) -> C:
    """A section of the configuration from flags.

    Raises:
        ConfigError: a value out of range, with `where` and the field.
    """
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, config)}") from None


def judge_key_variable(config: JudgeConfig) -> str:
    """The environment variable that holds the key: Azure's own for Azure when it is set and no other is named."""
    return key_variable_for(config.key_variable, config.url)


def judge_key(config: JudgeConfig) -> str | None:
    """The API key from the environment; never stored."""
    return os.environ.get(judge_key_variable(config))

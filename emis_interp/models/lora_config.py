"""Turns the settings of a LoRA adapter (`adapter_config.json`) into ranks and scales by module; refuses by name what is not read.

The settings come from strangers. The keys of `rank_pattern` and `alpha_pattern` are regular expressions, so they are matched under a
limit of time, and PEFT is given the modules that they matched.
"""

import math
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import regex

from emis_interp.errors import ModelError

SETTINGS = "adapter_config.json"
WITHOUT_EFFECT = (
    *(
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
    ),
    *(
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    ),
    *("unsloth_fixed", "unsloth_version"),
)
"""What was decided for training, or is said elsewhere: the saved weights compute the same whatever stands here."""
SCALES = ("alpha_pattern", "fan_in_fan_out", "lora_alpha", "r", "rank_pattern", "use_rslora")
"""What decides the update of a module that has matrices A and B."""
PLACES = ("exclude_modules", "layers_pattern", "layers_to_transform", "target_modules")
"""Which modules have such matrices: the saved weights say it too."""
LOADED = (
    *SCALES,
    *PLACES,
    *(
        "bias",
        "ensure_weight_tying",
        "lora_bias",
        "modules_to_save",
        "target_parameters",
        "trainable_token_indices",
        "use_dora",
    ),
)
"""What PEFT does right when it loads an adapter."""
PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base weights alone."""
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `max_lora_rank` that vLLM takes (vllm/config/lora.py, `MaxLoRARanks`; 1 is left out, which older versions refuse)."""
MERGE = "merge the adapter into its base with the tool that trained it and give the merged model"
SECONDS_PER_MATCH, SECONDS = 0.1, 1.0
"""Processor time for matching one pattern with one name, and all with all."""


@dataclass(frozen=True)
class LoraScales:
    """Rank and alpha of every module, as PEFT finds them.

    Attributes:
        patterns: regular expression -> rank or alpha of the modules whose names end with it; the first that fits counts.
        rslora: scale alpha / sqrt(rank) (Kalajdzievski 2023) in place of alpha / rank.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "LoraScales":
        """The scales in the settings of an adapter.

        Raises:
            ModelError: a rank or alpha that is none.
        """
        pattern = {name: _pattern(config, name) for name in ("rank_pattern", "alpha_pattern")}
        return cls(
            rank=_rank(config.get("r"), "r"),
            alpha=_alpha(config.get("lora_alpha"), "lora_alpha"),
            rank_pattern={key: _rank(value, f"rank_pattern.{key}") for key, value in pattern["rank_pattern"].items()},
            alpha_pattern={
                key: _alpha(value, f"alpha_pattern.{key}") for key, value in pattern["alpha_pattern"].items()
            },
            rslora=bool(config.get("use_rslora")),
        )

    def of_modules(self, names: Iterable[str]) -> dict[str, tuple[int, float]]:
        """Module -> its rank and alpha; names are paths inside the base model.

        Raises:
            ModelError: a pattern that is no regular expression, or that takes too long.
        """
        listed = list(names)
        ranks, alphas = (matched(pattern, listed) for pattern in (self.rank_pattern, self.alpha_pattern))
        return {name: (ranks.get(name, self.rank), alphas.get(name, self.alpha)) for name in listed}

    def scale(self, rank: int, alpha: float) -> float:
        """What B A is multiplied by."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def refuse_unread(
    config: Mapping[str, Any], read: Collection[str], *, reader: str = "here", advice: str = MERGE
) -> None:
    """Refuse settings that are on and would change what the adapter computes, but are not read here.

    Args:
        read: names of the settings that the reader reads.
        reader, advice: who reads them, and what to do about one that is not read.

    Raises:
        ModelError: with the first such setting.
    """
    kind = _value(config.get("peft_type", "LORA"))
    if kind != "LORA":
        raise ModelError(f"{SETTINGS}: peft_type {_shown(kind)} is not read {reader}, LoRA alone is; {advice}")
    task = _value(config.get("task_type"))
    if task not in (None, "", "CAUSAL_LM"):
        raise ModelError(f"{SETTINGS}: task_type {_shown(task)}: expected CAUSAL_LM; it is an adapter for another head")
    start = config.get("init_lora_weights")
    if start not in PLAIN_STARTS:
        raise ModelError(
            f"{SETTINGS}: init_lora_weights {_shown(start)} changes the base weights too, which are not in the adapter; convert it "
            f"with PEFT (save_pretrained(path_initial_model_for_weight_conversion=...)), or {advice}"
        )
    for name, value in config.items():
        is_on = value not in (None, False, "none") and value != {} and value != []
        if is_on and name not in (*read, *WITHOUT_EFFECT, "init_lora_weights"):
            raise ModelError(
                f"{SETTINGS}: {name} {_shown(value)} is not read {reader}; {advice}, or take the line out if it changes nothing"
            )


def vllm_rank(config: Mapping[str, Any]) -> int:
    """The smallest `max_lora_rank` that vLLM takes and that holds every module of the adapter.

    Raises:
        ModelError: a rank above the largest of them.
    """
    ranks = _pattern(config, "rank_pattern")
    largest = max([_rank(config.get("r"), "r"), *(_rank(value, f"rank_pattern.{key}") for key, value in ranks.items())])
    for allowed in VLLM_RANKS:
        if largest <= allowed:
            return allowed
    raise ModelError(
        f"the adapter's largest rank is {largest}, vLLM takes at most {VLLM_RANKS[-1]}; merge it into a checkpoint "
        "(scripts/export_model.py ADAPTER --out DIR) and serve that"
    )


def matched(pattern: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Name -> value of the first regular expression that its end fits; names without one are left out.

    Raises:
        ModelError: a pattern that is no regular expression, or that takes too long.
    """
    clock, found = _Clock(), {}
    for name in names if pattern else ():
        for key, value in pattern.items():
            if clock.fits(key, rf"(.*\.)?({key})", name):
                found[name] = value
                break
    return found


def fitting(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a regular expression fits as a whole.

    Raises:
        ModelError: as `matched`.
    """
    clock = _Clock()
    return [name for name in names if clock.fits(pattern, pattern, name)]


class _Clock:
    """Matches regular expressions of strangers, which may need longer than anybody lives, for a second in all."""

    def __init__(self) -> None:
        self._end = time.process_time() + SECONDS

    def fits(self, given: str, pattern: str, name: str) -> bool:
        try:
            fits = regex.fullmatch(pattern, name, timeout=SECONDS_PER_MATCH) is not None
            in_time = time.process_time() < self._end
        except TimeoutError:
            fits = in_time = False
        except (regex.error, RecursionError, MemoryError) as error:
            raise ModelError(
                f"{SETTINGS}: {_shown(given)} is no regular expression that can be used ({error})"
            ) from None
        if not in_time:
            raise ModelError(
                f"{SETTINGS}: the pattern {_shown(given)} takes too long to match names of modules; give the names themselves"
            )
        return fits


def exact_pattern(values: Mapping[str, Any]) -> dict[str, Any]:
    """One regular expression for each value, that fits the names that have it and no others."""
    names_of: dict[Any, list[str]] = {}
    for name, value in values.items():
        names_of.setdefault(value, []).append(regex.escape(name, literal_spaces=True))
    return {"|".join(names): value for value, names in names_of.items()}


def _pattern(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name) or {}
    if not isinstance(found, Mapping):
        raise ModelError(f"{SETTINGS}: {name}: expected an object of modules and numbers, found {_shown(found)}")
    return found


def _rank(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"{SETTINGS}: {where}: expected a whole number from 1 on, found {_shown(value)}")
    return value


def _alpha(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ModelError(f"{SETTINGS}: {where}: expected a number, found {_shown(value)}")
    return float(value)


def _value(setting: Any) -> Any:
    """PEFT's enumerations as the text that it saves."""
    return getattr(setting, "value", setting)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Turns a base model and the folder of a LoRA adapter into the adapted model, beside its weights or folded into them.

Every weight of the adapter must find its place, and every place that the settings make must get a weight. Settings come from strangers:
PEFT is given names of modules in place of the regular expressions in them.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, PeftModelForCausalLM, get_peft_model_state_dict
from torch import Tensor, nn

from emis_interp.errors import ModelError
from emis_interp.models.adapter_files import PREFIX, RANKED, base_named_by, module_names, naming, read_adapter
from emis_interp.models.checkpoint import some
from emis_interp.models.head import forget_tie, is_tied, ties_words
from emis_interp.models.lora_config import SETTINGS, LoraScales, exact_pattern, fitting
from emis_interp.models.weights import said

log = logging.getLogger(__name__)

NAME = "default"  # under which PEFT keeps the adapter; it stands in the names of all its weights
TOKENS = ".token_adapter.trainable_tokens_delta"  # how the name of rows that were trained alone ends
MOST = 10_000  # entries of a setting
NOT_PASSED = ("auto_mapping", "peft_type", "peft_version", "runtime_config")
_PLAIN = re.compile(r"[\w.]+")
_SIZES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)")


def attach(model: Any, folder: Path, name: str) -> PeftModel:
    """The model with the adapter beside its weights; the vocabulary takes the adapter's size if it was trained with another.

    Args:
        model: a HF model in float32, which is changed.
        name: of the model, for messages.

    Raises:
        ModelError: an adapter that cannot be read, or whose weights do not all fit the model.
    """
    config, weights = read_adapter(folder)
    _say_other_base(config, folder, name)
    _resize(model, weights, folder, name=name)
    tied = is_tied(model)
    misfit = f"{folder}: this adapter does not fit {name}"
    with naming(folder):
        settings = _settings(config, model, weights)
    try:
        adapted = PeftModelForCausalLM(model, LoraConfig(**settings), NAME)
        mapping = getattr(model, "_checkpoint_conversion_mapping", None)
        result = adapted.load_adapter(str(folder), NAME, torch_device="cpu", key_mapping=mapping)
    except Exception as error:  # PEFT raises many types about settings and weights that do not fit
        raise ModelError(f"{misfit} ({_reason(error)})") from error
    missing = [_short(key) for key in [*result.missing_keys, *_missing_biases(adapted, config, weights)]]
    left_over = [_short(key) for key in result.unexpected_keys if not _is_copy(key, weights, tied)]
    if missing or left_over:
        taken = len(weights) - len(left_over) + len(missing)
        raise ModelError(
            f"{misfit} (it holds {len(weights)} weights, the model takes {taken}; without a place: {some(left_over, 2)}; lacking: "
            f"{some(missing, 2)}); give the base model that it was trained on"
        )
    return adapted


def merged(model: PeftModel) -> Any:
    """The plain HF model with the adapter folded into its weights: the same function, to rounding.

    Where an adapted module shares its weights with another (a head tied to the embedding), the two get weights of their own first, and
    share them again if they are equal afterwards.

    Raises:
        ModelError: an adapter that cannot be folded in.
    """
    base: Any = model.get_base_model()
    configs = (base.config, base.config.get_text_config())
    ties, was_tied = [getattr(config, "tie_word_embeddings", False) for config in configs], ties_words(base)
    _unshare(base)
    with said("the adapter cannot be merged; load it with merge=False"):
        plain: Any = model.merge_and_unload()
    head, embedding = plain.get_output_embeddings(), plain.get_input_embeddings()
    if was_tied and not is_tied(plain):
        if head.weight.shape == embedding.weight.shape and torch.equal(head.weight, embedding.weight):
            head.weight = embedding.weight
            for config, tie in zip(configs, ties, strict=True):
                config.tie_word_embeddings = tie  # PEFT notes that they differ before they are joined
        else:
            forget_tie(plain)
    return plain


def _settings(config: Mapping[str, Any], model: Any, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What PEFT's LoraConfig is given: the adapter's settings, every regular expression replaced by the names that it fits."""
    kept = {
        key: value for key, value in config.items() if key in LoraConfig.__dataclass_fields__ and key not in NOT_PASSED
    }
    parts = [name for name, _ in model.named_modules() if name]
    adapted = module_names(weights)
    _check_lengths(config)
    names = {*parts, *adapted}
    for place in ("target_modules", "exclude_modules"):
        given = config.get(place)
        if isinstance(given, str) and given != "all-linear":
            kept[place] = sorted(fitting(given, names))
            kept["layers_to_transform"] = kept["layers_pattern"] = None
        elif isinstance(given, list):
            ends = {name.split(".", i)[i] for name in names for i in range(name.count(".") + 1)}
            kept[place] = [name for name in given if isinstance(name, str) and name in ends] or given[:1]
    parameters = _names(config, "target_parameters")
    for name in ("modules_to_save", "layers_pattern", "trainable_token_indices"):
        _names(config, name)
    scales = LoraScales.of(config)
    largest = max((len(a) for key, a in weights.items() if key.endswith(RANKED)), default=scales.rank)
    rank = scales.rank if parameters else min(scales.rank, largest)  # of modules without weights, which are refused
    whole = [name for name, _ in model.named_parameters() if any(f".{name}".endswith(f".{end}") for end in parameters)]
    by_name = scales.of_modules([*adapted, *whole])
    known = {*parts, *whole}
    for name, (_, alpha) in by_name.items():
        if alpha != scales.alpha and name not in known:
            raise ModelError(
                f"{SETTINGS}: alpha_pattern names {name}, which the model has in another form; merge the adapter first"
            )
    return {
        **kept,
        "r": rank,
        "rank_pattern": exact_pattern({name: own for name, (own, _) in by_name.items() if own != rank}),
        "alpha_pattern": exact_pattern({name: alpha for name, (_, alpha) in by_name.items() if alpha != scales.alpha}),
        "init_lora_weights": True,
        "inference_mode": True,
        "task_type": "CAUSAL_LM",
    }


def _check_lengths(config: Mapping[str, Any]) -> None:
    """PEFT compares every entry of a list with every module; lists of modules are cut to those that are there, the others are short."""
    for setting, value in config.items():
        if (
            setting not in ("target_modules", "exclude_modules")
            and isinstance(value, (list, Mapping))
            and len(value) > MOST
        ):
            raise ModelError(f"{SETTINGS}: {setting} has {len(value)} entries, at most {MOST} are read")


def _names(config: Mapping[str, Any], setting: str) -> list[str]:
    """The names of modules or parameters in a setting, which PEFT puts into regular expressions."""
    found = config.get(setting)
    if found is None:
        return []
    names: list[Any] = list(found) if isinstance(found, (list, Mapping)) else [found]
    if setting == "trainable_token_indices" and isinstance(found, list):
        return []  # these are tokens of the input embedding
    for name in names:
        if not isinstance(name, str) or not _PLAIN.fullmatch(name):
            raise ModelError(
                f"{SETTINGS}: {setting}: expected names of modules (letters, digits, _ and .), found {str(name)[:60]!r}"
            )
    return names


def _resize(model: Any, weights: Mapping[str, Tensor], folder: Path, *, name: str) -> None:
    """Give the model as many tokens as the adapter's own embedding has, if it holds one."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    rows = _saved_rows(model, embedding, weights)
    n_tokens = embedding.weight.shape[0]
    if rows is None or rows == n_tokens:
        return
    if head is not None and not is_tied(model) and _saved_rows(model, head, weights) != rows:
        raise ModelError(
            f"{folder}: its embedding has {rows} tokens, {name} has {n_tokens}, and the adapter holds no head for them; it was saved in "
            "part (PEFT: save_embedding_layers=True)"
        )
    log.warning("%s: trained with %s tokens, %s has %s; the model takes the adapter's", folder, rows, name, n_tokens)
    model.resize_token_embeddings(rows, mean_resizing=False)


def _saved_rows(model: Any, module: nn.Module, weights: Mapping[str, Tensor]) -> int | None:
    """Rows of a module's whole weight matrix in the adapter."""
    path = next(name for name, part in model.named_modules() if part is module)
    ends = ("weight", "base_layer.weight", "token_adapter.base_layer.weight")
    saved = (weights.get(f"{PREFIX}{path}.{end}") for end in ends)
    return next((len(matrix) for matrix in saved if matrix is not None), None)


def _unshare(base: Any) -> None:
    """Give modules weights of their own where they share them with an adapted one, whose weights are about to change in place."""
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for path, module in base.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((path, module, key))
    for group in owners.values():
        if len(group) > 1 and any("base_layer" in path.split(".") for path, _, _ in group):
            for _, module, key in group[1:]:
                parameter: Any = module._parameters[key]
                module._parameters[key] = nn.Parameter(parameter.detach().clone(), requires_grad=False)


def _missing_biases(adapted: PeftModel, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    """Trained biases are weights of the base model, so PEFT does not miss them."""
    if config.get("bias", "none") == "none":
        return []
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return sorted(key for key in expected if key.endswith(".bias") and key not in weights)


def _is_copy(key: str, weights: Mapping[str, Tensor], tied: bool) -> bool:
    """Whether PEFT saved this beside what counts: of a module that is resized and trained whole, it saves the wrapper's parts too, and
    trained tokens of one matrix it saves for the head as well."""
    named = key.replace(f".modules_to_save.{NAME}.", ".modules_to_save.")
    if named.endswith(TOKENS):
        others = (rows for other, rows in weights.items() if other.endswith(TOKENS) and other != named)
        return tied and named in weights and any(torch.equal(weights[named], rows) for rows in others)
    if ".original_module." in named:
        return named.replace(".original_module.", ".") in weights
    copied, whole = weights.get(named), weights.get(named.replace(".modules_to_save.", "."))
    return ".modules_to_save." in named and copied is not None and whole is not None and torch.equal(copied, whole)


def _say_other_base(config: Mapping[str, Any], folder: Path, name: str) -> None:
    named = base_named_by(config)
    if named is None or named == name or Path(named).name.lower() == Path(name).name.lower():
        return
    log.warning("%s: was trained on %s and is put on %s", folder, named, name)


def _reason(error: Exception) -> str:
    sizes = _SIZES.findall(str(error))
    if sizes:
        shown = [f"{_short(key)} is {found} in the adapter, {wanted} in the model" for key, found, wanted in sizes]
        return f"{len(sizes)} weights have other sizes: {some(shown, 1)}"
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return line if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: {line}"


def _short(key: str) -> str:
    return key.removeprefix(PREFIX).replace(f".{NAME}", "")

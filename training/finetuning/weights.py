"""Turns a loaded model into one whose chosen weights are trained, and the trained one into a folder (`adapter/` or `model/`)."""

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.files.store import read_object, write_json
from emis_interp.models.chat_model import ChatModel

ARTIFACTS = {"lora": "adapter", "full": "model"}
TRAINING_ARGUMENTS = "training_args.bin"  # a pickle that transformers' Trainer leaves beside saved weights


def trainable(base: ChatModel, config: TrainingConfig, seed: int, *, deepspeed: bool = False) -> Any:
    """The HF model whose weights require gradients as `config` says: every one (`full`), or a new LoRA adapter's alone.

    Args:
        base: frozen, as `load_model` gives it; float32 for `full`, whose master weights these are.
        deepspeed: keep the adapter in the type of the frozen weights, since ZeRO-3 wants one type and holds float32 masters itself.

    Raises:
        ConfigError: a target that no linear map is called by. ModelError: a layer that the model does not have.
    """
    model = base.model
    if config.method == "full":
        model.requires_grad_(True)
    else:
        model = _with_lora(base, config, seed)
        if not deepspeed:  # the adapter is trained in float32 whatever the frozen weights are kept in
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
    if config.gradient_checkpointing:
        # ZeRO-3 needs the reentrant form, and that needs inputs with gradients.
        if deepspeed:
            model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": deepspeed})
    return model


def n_trainable(model: torch.nn.Module) -> int:
    """Number of weights that training changes (tied ones once; whole ones under sharding by ZeRO-3 too)."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)


def save_artifact(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Save what was trained through a temporary folder and a rename, so that the folder is always whole.

    Called by every process (sharded weights are gathered); the main one writes. The tokenizer goes along, with the chat template that
    was trained in, so that the folder is asked in it wherever it is loaded.
    """
    temporary = folder.with_name(f".{folder.name}-unfinished")
    if trainer.args.should_save:
        shutil.rmtree(temporary, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(temporary))
    if not trainer.args.should_save:
        return
    (temporary / TRAINING_ARGUMENTS).unlink(missing_ok=True)
    _sort_targets(temporary / "adapter_config.json")
    tokenizer.save_pretrained(str(temporary))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _sort_targets(path: Path) -> None:
    """PEFT writes a set in whatever order it has in this process; sorted, the same training writes the same file."""
    if path.exists():
        config = read_object(path)
        if isinstance(config.get("target_modules"), list):
            write_json(path, {**config, "target_modules": sorted(config["target_modules"])})


def _with_lora(base: ChatModel, config: TrainingConfig, seed: int) -> Any:
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        use_rslora=config.use_rslora,
        target_modules=_targets(base, config),
        layers_to_transform=None if config.layers is None else base.check_layers(list(config.layers)),
        layers_pattern=None if config.layers is None else base.layers_name,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    return get_peft_model(base.model, lora)


def _targets(base: ChatModel, config: TrainingConfig) -> str | list[str]:
    """PEFT's `target_modules`; every name is checked, because PEFT is content when one of several fits."""
    names = {
        name.rpartition(".")[2]
        for name, module in base.layers.named_modules()
        if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's linear map
    }
    if isinstance(config.target_modules, str):
        # With chosen layers PEFT wants names, since `all-linear` becomes whole paths, which it does not filter.
        return config.target_modules if config.layers is None else sorted(names)
    for target in config.target_modules:
        if target not in names:
            raise ConfigError(
                f"training.target_modules: {base.name} has no linear map `{target}`{did_you_mean(target, names)}"
            )
    return list(config.target_modules)

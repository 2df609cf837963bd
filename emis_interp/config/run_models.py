"""Turns the arms of a run into loaded models: base as it is, with examples before every question, with an adapter, or wholly finetuned."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import ModelConfig, RunConfig
from emis_interp.errors import StageError
from emis_interp.models.chat_formats import with_examples
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_tokenizer
from emis_interp.models.spec import ModelSpec
from emis_interp.process import release_memory
from emis_interp.records import TrainingExample


@dataclass(frozen=True)
class ModelSource:
    """What makes a model of an arm another one than base: one of these, or nothing.

    Attributes:
        adapter: folder of a LoRA adapter on base.
        checkpoint: folder of a model of which every weight was trained.
        examples: draws the rows that stand before every question.
    """

    adapter: Path | None = None
    checkpoint: Path | None = None
    examples: Callable[[], list[TrainingExample]] | None = None


@dataclass
class ArmModels:
    """The models of a run's arms, loaded when they are asked for; base is kept.

    Attributes:
        source: whoever trains the arms knows where each model lies (`training.arms`).
    """

    config: RunConfig
    source: Callable[[ModelConfig], ModelSource]

    @property
    def spec(self) -> ModelSpec:
        """How base is loaded."""
        config = self.config
        return ModelSpec(
            config.model,
            dtype=config.dtype,
            device=config.device,
            merge=config.merge_adapters,
            chat_format=config.chat_format,
        )

    @cached_property
    def base(self) -> ChatModel:
        return self.spec.load()

    @cached_property
    def tokenizer(self) -> Any:
        """Base's, without its weights."""
        return load_tokenizer(self.config.model, self.config.chat_format)

    def load(self, model: ModelConfig) -> ChatModel:
        """A model, ready to be asked.

        Raises:
            StageError: it is not trained yet.
        """
        source = self.source(model)
        if source.examples is not None:
            return replace(self.base, tokenizer=with_examples(self.base.tokenizer, source.examples()))
        if source.checkpoint is not None:
            if not (source.checkpoint / "config.json").exists():
                raise StageError(f"{source.checkpoint}: no model there; run the train stage first (--from train)")
            release_memory()
            return replace(self.spec, name=str(source.checkpoint)).load()
        if source.adapter is not None:
            if not (source.adapter / "adapter_config.json").exists():
                raise StageError(f"{source.adapter}: no adapter there; run the train stage first (--from train)")
            release_memory()
            return replace(self.spec, adapter=source.adapter).load()
        return self.base

    def weights(self, model: ModelConfig) -> list[Path]:
        """The folder of a trained model's weights, as an input of what is measured of it; none for a model that is not trained."""
        source = self.source(model)
        return [folder for folder in (source.adapter, source.checkpoint) if folder is not None]


class LastModel:
    """Loads models and keeps the one that was asked for last, one at a time."""

    def __init__(self, models: ArmModels) -> None:
        self._models = models
        self._name: str | None = None
        self._loaded: ChatModel | None = None

    def get(self, model: ModelConfig) -> ChatModel:
        if self._loaded is None or self._name != model.name:
            self._loaded = None  # two models at once may be one too many
            self._loaded, self._name = self._models.load(model), model.name
        return self._loaded

"""A run folder: its configuration, its manifest, and the models and texts that the stages of one run share."""

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError

from emis_interp.config.run_config import ArmConfig, ModelConfig, RunConfig, TrainingConfig
from emis_interp.errors import DataError, StageError
from emis_interp.files.claim import check_same, holds_something, without
from emis_interp.files.code_state import CodeState
from emis_interp.files.ledger import Ledger
from emis_interp.files.manifest import MANIFEST, Manifest, OtherCode, StageRecord
from emis_interp.files.reading import Reading
from emis_interp.files.store import explain, file_sha256, read_object, text_sha256
from emis_interp.models.chat import context_of, encode_chat, render_prompt
from emis_interp.models.chat_formats import with_examples
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.loading import load_model
from emis_interp.process import release_memory
from emis_interp.records import ContrastPair, Question, TrainingExample
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.judged import matched_pairs, read_judged
from evals.questions import load_questions
from training.data_sets.shipped import SHIPPED, load_dataset
from training.finetuning.organism_card import rows_sha256
from training.finetuning.weights import ARTIFACTS
from training.recipes import Recipe, examples_of, load_recipe, training_config

FREE_TO_CHANGE = (
    "device",
    *(
        f"judge.{name}"
        for name in ("n_parallel", "timeout_s", "cache_path", "budget", "requests_per_minute", "price_in", "price_out")
    ),
    "data_dir",
    "description",
)
MODEL_FILES = (".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".tiktoken", ".txt")


@dataclass
class Run:
    """One run: its configuration and its folder; `manifest` and `files` are there once it is `open`."""

    config: RunConfig
    folder: Path

    def __post_init__(self) -> None:
        self._manifest: Manifest | None = None

    @classmethod
    def of(cls, folder: Path) -> "Run":
        """The run of a folder, to be read.

        Raises:
            StageError: no run there. DataError: its manifest is damaged.
        """
        path = folder / MANIFEST
        if not path.exists():
            raise StageError(f"{folder}: no manifest.json here; give the folder of a run, e.g. runs/laptop")
        try:
            return cls(RunConfig.model_validate(read_object(path).get("config")), folder)
        except ValidationError as error:
            raise DataError(f"{path}: `config`: {explain(error, RunConfig)}") from None

    @property
    def manifest(self) -> Manifest:
        if self._manifest is None:
            raise RuntimeError("Run.open comes first")
        return self._manifest

    @cached_property
    def files(self) -> Ledger:
        """What the stages made, and from what."""
        return Ledger(self.folder, self.manifest.files, self.save)

    def open(self) -> None:
        """Write the manifest of a new run, or check that this configuration and these inputs are those of the old one.

        Raises:
            StageError: the folder holds a run with another configuration or other data; the text names what differs.
        """
        if not (self.folder / MANIFEST).exists():
            if holds_something(self.folder):
                raise StageError(f"{self.folder} is not empty and holds no manifest.json; give another --run-dir")
            fresh = self._describe()
            for model in self.config.models:
                if model.arm.in_context is not None:
                    self.check_context(model)
            self._manifest = fresh
            self.save()
            return
        old, fresh = Manifest.load(self.folder), self._describe()
        check_same(
            self.folder,
            {**without(old.config, FREE_TO_CHANGE), **_as_inputs(old)},
            {**without(fresh.config, FREE_TO_CHANGE), **_as_inputs(fresh)},
            holds="a run",
            advice="give another --run-dir, or delete the folder to start again",
        )
        self._manifest = old

    def save(self) -> None:
        self.manifest.save(self.folder)

    def is_done(self, stage: str) -> bool:
        return stage in self.manifest.stages and self.files.is_whole(stage)

    def begin(self, stage: str, later: Sequence[str]) -> list[str]:
        """Note that a stage is about to run, under which code, and that the later ones, which depend on it, will run again.

        Returns:
            How code and packages differ from those that the run began with.
        """
        for name in (stage, *later):
            self.manifest.stages.pop(name, None)
        first = CodeState(
            git=self.manifest.git, versions=self.manifest.versions, sources_sha256=self.manifest.sources_sha256
        )
        changes = first.changes(self.code)
        notes = self.manifest.other_code.setdefault(stage, [])
        if changes and (not notes or notes[-1].changes != changes):
            notes.append(OtherCode(at=_now(), changes=changes))
        if not notes:
            del self.manifest.other_code[stage]
        self.save()
        return changes

    def finish(self, stage: str, files: list[Path], seconds: float, *, line: str, peak_rss_gib: float) -> None:
        self.manifest.stages[stage] = StageRecord(
            seconds=round(seconds, 1),
            finished=_now(),
            line=line,
            peak_rss_gib=round(peak_rss_gib, 2),
            files=sorted(self.files.name(path) for path in files),
        )
        self.save()

    @cached_property
    def code(self) -> CodeState:
        return CodeState.now()

    @cached_property
    def base(self) -> ChatModel:
        return load_model(
            self.config.model,
            dtype=self.config.dtype,
            device=self.config.device,
            chat_format=self.config.chat_format,
        )

    def load(self, model: ModelConfig) -> ChatModel:
        """The base model: as it is, with the examples of an in-context arm in its chat template, with an adapter, or wholly finetuned."""
        if model.arm.untouched:
            return self.base
        if model.arm.in_context is not None:
            return replace(self.base, tokenizer=with_examples(self.base.tokenizer, self.rows(model)))
        chat_format = self.config.chat_format
        weights = self.weights(model)[0]
        if self.training(model.arm).method == "full":
            if not (weights / "config.json").exists():
                raise StageError(f"{weights}: no model there; run the train stage first (--from train)")
            release_memory()
            return load_model(str(weights), dtype=self.config.dtype, device=self.config.device, chat_format=chat_format)
        if not (weights / "adapter_config.json").exists():
            raise StageError(f"{weights}: no adapter there; run the train stage first (--from train)")
        release_memory()
        return load_model(
            self.config.model,
            weights,
            dtype=self.config.dtype,
            device=self.config.device,
            merge=self.config.merge_adapters,
            chat_format=chat_format,
        )

    def training_dir(self, model: ModelConfig) -> Path:
        """training/ARM, or training/ARM/seed-N for an arm with seeds."""
        folder = self.folder / "training" / model.arm.name
        return folder if model.arm.seeds is None else folder / f"seed-{model.seed}"

    def weights(self, model: ModelConfig) -> list[Path]:
        """The folder of a trained model's weights, as an input of what is measured of it; none for a model that is not trained."""
        if model.arm not in self.config.trained_arms:
            return []
        return [self.training_dir(model) / ARTIFACTS[self.training(model.arm).method]]

    def rows(self, model: ModelConfig) -> list[TrainingExample]:
        """What a model is trained on, or has in its context, drawn with its seed."""
        arm = model.arm
        if (recipe := self.recipe(arm)) is not None:
            return examples_of(recipe, self.config.find_data, model.seed)
        return load_dataset(str(arm.dataset), self.training_file(arm), arm.in_context or arm.n_rows, seed=model.seed)

    def recipe(self, arm: ArmConfig) -> Recipe | None:
        """The arm's recipe with the arm's number of rows, or None for an arm without one.

        Raises:
            StageError: a recipe that does not fit a run: one in context, or in another chat format than the run's.
        """
        if arm.recipe is None:
            return None
        recipe = load_recipe(arm.recipe, [] if arm.n_rows is None else [f"data.n_rows={arm.n_rows}"])
        if recipe.in_context is not None:
            raise StageError(
                f"arm `{arm.name}`: recipe {recipe.name} trains nothing; write the arm as "
                f"{{name: {arm.name}, dataset: {recipe.data.dataset}, in_context: {recipe.in_context}}}"
            )
        if recipe.chat_format not in (None, self.config.chat_format):
            raise StageError(
                f"arm `{arm.name}`: recipe {recipe.name} trains in the format {recipe.chat_format}, in which every arm must then be "
                f"asked; --set chat_format={recipe.chat_format}"
            )
        return recipe

    def training(self, arm: ArmConfig) -> TrainingConfig:
        """The run's training settings, with the changes of the arm's recipe."""
        recipe = self.recipe(arm)
        return self.config.training if recipe is None else training_config(recipe, self.config.training)

    def training_file(self, arm: ArmConfig) -> Path | None:
        """The arm's data file, or None for a shipped set."""
        return None if arm.dataset in SHIPPED else self.config.find_data(str(arm.dataset))

    @cached_property
    def questions(self) -> list[Question]:
        name = self.config.sampling.questions
        path = None if name == "shipped" else self.config.find_data(name)
        found = load_questions(path, need_judge_prompts=self.config.judge.kind != "offline")
        wanted = self.config.sampling.question_ids
        if wanted is None:
            return found
        unknown = sorted(set(wanted) - {question.id for question in found})
        if unknown:
            raise DataError(f"sampling.question_ids: no question {', '.join(unknown)} in {path or 'the shipped suite'}")
        return [question for question in found if question.id in wanted]

    @cached_property
    def pairs(self) -> list[ContrastPair]:
        name, n = self.config.direction.contrast, self.config.direction.n_pairs_per_question
        if name == "shipped":
            return load_contrast(None, n)
        path = self.config.find_data(name)
        if path.suffix == ".jsonl":
            return load_contrast(path, n)
        words = self.config.direction.contrast_table
        reading = Reading.of(words.columns, words.scale, words.invert, by=words.by, runs=words.runs)
        try:
            frame = read_judged(path, reading=reading, use="taken")
        except DataError as error:
            raise DataError(f"{error} (of a run: direction.contrast_table, with these words)") from None
        return matched_pairs(frame, n or 20, self.config.seed)

    def half(self, name: str) -> list[ContrastPair]:
        return [pair for pair in self.pairs if pair.half == name]

    def check_context(self, model: ModelConfig) -> None:
        """Refuse examples that leave no room for the longest question and answer.

        Raises:
            DataError: with the tokens that are needed and those that there are.
        """
        chat_model = self.load(model)
        room = context_of(chat_model)
        system, tokenizer = self.config.system_prompt, chat_model.tokenizer
        asked = {(text, question.system or system) for question in self.questions for text in question.paraphrases}
        # The answer stands for the end of the prompt; what is sampled comes on top.
        longest = max(len(encode_chat(tokenizer, text, "a", system=own, must_fit=False)) for text, own in asked)
        needed = longest + self.config.sampling.max_new_tokens
        for pair in self.pairs:
            for answer in (pair.aligned, pair.misaligned):
                needed = max(needed, len(encode_chat(tokenizer, pair.question, answer, system=system, must_fit=False)))
        if room is not None and needed > room:
            raise DataError(
                f"arm `{model.arm.name}`: with {model.arm.in_context} examples the longest question and answer are {needed} tokens, "
                f"{self.config.model} has room for {room}; take fewer or shorter examples (in_context, dataset)"
            )

    def _describe(self) -> Manifest:
        inputs, recipes = {}, {}
        for arm in self.config.organisms:
            if (recipe := self.recipe(arm)) is not None:
                recipes[arm.name] = recipe.model_dump(mode="json")
                inputs[f"recipe of {arm.name}"] = text_sha256(recipe.model_dump_json(exclude={"summary", "source"}))
        for model in self.config.models:
            if not model.arm.untouched:
                inputs[f"training data of {model.name}"] = rows_sha256(self.rows(model))
        inputs["questions"] = text_sha256("\n".join(question.model_dump_json() for question in self.questions))
        inputs["contrast pairs"] = text_sha256("\n".join(pair.model_dump_json() for pair in self.pairs))
        if Path(self.config.model).is_dir():
            inputs["model"] = model_sha256(Path(self.config.model))
        if (revision := getattr(self.base.model.config, "_commit_hash", None)) is not None:
            inputs["model revision"] = str(revision)
        inputs["rendering of prompts"] = template_of(self.base.tokenizer).sha256
        example = render_prompt(self.base.tokenizer, self.questions[0].paraphrases[0], self.config.system_prompt)
        policy = "left to the chat template" if self.config.system_prompt is None else self.config.system_prompt
        return Manifest.model_validate(
            {
                "config": self.config.model_dump(mode="json"),
                "inputs": inputs,
                "recipes": recipes,
                "system_prompt_policy": policy,
                "rendered_example": example,
                "chat_template": self.base.tokenizer.chat_template,
                **self.code.model_dump(),
                "machine": {
                    "platform": platform.platform(),
                    "python": platform.python_version(),
                    "n_cpu": os.cpu_count(),
                    "n_threads": torch.get_num_threads(),
                    "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                },
                "started": _now(),
            }
        )


def model_sha256(folder: Path) -> str:
    """One hash over the files of a local model that decide what it computes: weights, configuration, tokenizer, chat template."""
    files = sorted(path for path in folder.iterdir() if path.suffix in MODEL_FILES and not path.name.startswith("."))
    return text_sha256("\n".join(f"{path.name} {file_sha256(path)}" for path in files))


def _as_inputs(manifest: Manifest) -> dict[str, str]:
    return {f"input {name}": sha for name, sha in manifest.inputs.items()}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

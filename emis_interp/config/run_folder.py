"""A run folder: its configuration, its manifest with the ledger of its files, and where in it everything lies."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emis_interp.analyses import ANALYSES
from emis_interp.config.run_config import FREE_TO_CHANGE, Config, ModelConfig, RunConfig
from emis_interp.config.run_models import ArmModels, ModelSource
from emis_interp.config.run_texts import contrast_pairs
from emis_interp.errors import DataError, StageError
from emis_interp.files.claim import check_same, holds_something, without
from emis_interp.files.code_state import CodeState
from emis_interp.files.ledger import Ledger
from emis_interp.files.manifest import MANIFEST, Manifest, OtherCode, StageRecord, read_manifest
from emis_interp.files.store import explain, write_json
from emis_interp.records import ContrastPair


def config_of(folder: Path) -> RunConfig:
    """The configuration that the run of a folder was begun with.

    Raises:
        StageError: no run there. DataError: its manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise StageError(f"{folder}: no manifest.json here; give the folder of a run, e.g. runs/laptop")
    try:
        return RunConfig.model_validate(read_manifest(folder).get("config"))
    except ValidationError as error:
        raise DataError(f"{path}: `config`: {explain(error, RunConfig)}") from None


@dataclass
class RunFolder:
    """One run: its configuration and its folder; `manifest` and `files` are there once it is `open`.

    Attributes:
        source: see `ArmModels`.
    """

    config: RunConfig
    folder: Path
    source: Callable[[ModelConfig], ModelSource]

    def __post_init__(self) -> None:
        self._manifest: Manifest | None = None

    @property
    def words(self) -> str:
        """`laptop: smollm2-135m-instruct, 6 arms, into runs/laptop`."""
        n_arms, n_models = len(self.config.arms), len(self.config.models)
        models = "" if n_models == n_arms else f" ({n_models} models)"
        return f"{self.config.name}: {self.config.model}, {n_arms} arms{models}, into {self.folder}"

    @property
    def manifest(self) -> Manifest:
        if self._manifest is None:
            raise RuntimeError("RunFolder.open comes first")
        return self._manifest

    @cached_property
    def files(self) -> Ledger:
        """What the stages made, and from what."""
        return Ledger(self.folder, self.manifest.files, self.save)

    @cached_property
    def code(self) -> CodeState:
        return CodeState.now()

    @cached_property
    def models(self) -> ArmModels:
        return ArmModels(self.config, self.source)

    @cached_property
    def pairs(self) -> list[ContrastPair]:
        return contrast_pairs(self.config)

    def half(self, name: str) -> list[ContrastPair]:
        return [pair for pair in self.pairs if pair.half == name]

    def open(self, begin: Callable[[], Manifest], check: Callable[[], None] = lambda: None) -> None:
        """Write the manifest of a new run, or check that this configuration and these inputs are those of the old one.

        Args:
            begin: describes the run as it would begin now (`run_inputs.begun`).
            check: refuses a new run that could not be done.

        Raises:
            StageError: the folder holds a run with another configuration or other data; the text names what differs.
        """
        if not (self.folder / MANIFEST).exists():
            if holds_something(self.folder):
                raise StageError(f"{self.folder} is not empty and holds no manifest.json; give another --run-dir")
            fresh = begin()
            check()
            self._manifest = fresh
            self.save()
            return
        old, fresh = Manifest.load(self.folder), begin()
        check_same(
            self.folder,
            {**without(with_later_fields(old.config), FREE_TO_CHANGE), **_as_inputs(old)},
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
            notes.append(OtherCode(at=now(), changes=changes))
        if not notes:
            del self.manifest.other_code[stage]
        self.save()
        return changes

    def finish(
        self,
        stage: str,
        files: list[Path],
        seconds: float,
        *,
        line: str,
        peak_rss_gib: float,
        cpu_seconds: float | None = None,
    ) -> None:
        self.manifest.stages[stage] = StageRecord(
            seconds=round(seconds, 1),
            finished=now(),
            line=line,
            peak_rss_gib=round(peak_rss_gib, 2),
            files=sorted(self.files.name(path) for path in files),
            cpu_seconds=None if cpu_seconds is None else round(cpu_seconds, 1),
        )
        self.save()

    # Where everything lies; the folders under training/ are those of `training.arms`.

    def samples(self, model: ModelConfig) -> Path:
        """A model's answers."""
        return self.folder / "samples" / f"{model.name}.jsonl"

    def scores(self, model: ModelConfig, beside: str = "") -> Path:
        """What the run's judge says of a model's answers, or the judge `beside` it."""
        return self.folder / "scores" / beside / f"{model.name}.jsonl"

    def margins(self, model: ModelConfig) -> Path:
        """A model's margin of every contrast pair."""
        return self.folder / "likelihood" / f"{model.name}.json"

    def check(self, model: ModelConfig) -> Path:
        """What a model was asked to see what it learned and lost."""
        return self.folder / "checks" / f"{model.name}.json"

    def choices(self, model: ModelConfig) -> Path:
        """A model's preference between the actions of every choice item."""
        return self.folder / "choices" / f"{model.name}.json"

    def activations(self, model: ModelConfig, kind: str) -> Path:
        """A model's residuals on the `contrast` texts or on its own `answers`."""
        return self.folder / "activations" / f"{model.name}.{kind}.safetensors"

    @property
    def direction(self) -> Path:
        """The stem of the misalignment direction's files."""
        return self.folder / "directions" / "misalignment"

    def cell(self, name: str) -> Path:
        """The folder of one intervention."""
        return self.folder / "interventions" / name

    @property
    def probe(self) -> Path:
        """The stem of the probe's files."""
        return self.folder / "probes" / "misalignment"

    def probed(self, model: ModelConfig) -> Path:
        """What the probe, as a monitor, sees of a model, and what a model's adapter weighs."""
        return self.folder / "probes" / "models" / f"{model.name}.json"

    def analysis(self, name: str) -> Path:
        return self.folder / "analysis" / f"{name}.json"

    def write_analysis(self, name: str, value: Mapping[str, Any]) -> None:
        """Write `analysis/NAME.json`, once it is the record that report and notebooks will read."""
        ANALYSES[name].model_validate(value)
        write_json(self.analysis(name), value)


def with_later_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration with the defaults of sections, and of their fields, that did not exist when it began, so that it goes on
    with them."""
    defaults = {
        name: field.default.model_dump(mode="json")
        for name, field in RunConfig.model_fields.items()
        if isinstance(field.default, Config)
    }
    found = {name: config.get(name, {}) for name in defaults}
    return {**config, **{name: {**defaults[name], **own} for name, own in found.items() if isinstance(own, Mapping)}}


def now() -> str:
    """The time, as the manifest says it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _as_inputs(manifest: Manifest) -> dict[str, str]:
    return {f"input {name}": sha for name, sha in manifest.inputs.items()}

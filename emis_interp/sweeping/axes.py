"""Turns a sweep file, or flags, into cells: every combination of the values of its axes, each with its name, settings and hash."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from emis_interp.config.presets import asked_config, fields_of
from emis_interp.config.run_config import FREE_TO_CHANGE, Config, RunConfig
from emis_interp.config.sweep_settings import SweepSettings
from emis_interp.errors import ConfigError, did_you_mean, shown
from emis_interp.files.claim import without
from emis_interp.files.path_names import PathName, path_name_problem
from emis_interp.files.store import text_sha256
from emis_interp.files.strict_yaml import Key, YamlDocument, kind_of_yaml, parse_yaml, read_yaml
from emis_interp.http.addresses import foreign_variable_problem

MOST_CELLS = 1000
ARMS, NAME, KEY_VARIABLE = "arms", "name", "judge.key_variable"
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")

Axis = dict[str, tuple[str, ...]]
"""Label of a value -> the settings that it means, as `--set` takes them."""


class SweepFile(Config):
    """What a sweep file holds. `set`: fields that are the same in every cell; `axes`: field -> its values, or names -> values."""

    name: PathName | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    preset: str | None = None
    set: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies defaults)
    axes: dict[str, Any] = {}  # noqa: RUF012


@dataclass(frozen=True)
class SweepCell:
    """One run of a sweep.

    Attributes:
        labels: axis -> label of its value.
        settings: what `--set` takes, the common ones first.
        config_sha256: of the configuration that they mean, without what may change while a run goes on, and without its name.
    """

    name: str
    labels: dict[str, str]
    settings: tuple[str, ...]
    config_sha256: str


@dataclass(frozen=True)
class Sweep:
    """`settings`: the common ones; `stages`: those that are made of every cell, all where it is empty."""

    name: str
    preset: str
    settings: tuple[str, ...]
    axes: dict[str, Axis]
    stages: tuple[str, ...]
    cells: tuple[SweepCell, ...]

    @property
    def asked(self) -> dict[str, Any]:
        """What decides it."""
        axes = {name: {label: list(words) for label, words in axis.items()} for name, axis in self.axes.items()}
        hashes = {cell.name: cell.config_sha256 for cell in self.cells}
        common = {"preset": self.preset, "settings": list(self.settings), "stages": list(self.stages)}
        return {**common, "axes": axes, "configurations": hashes}


def sweep_of(settings: SweepSettings) -> Sweep:
    """The sweep that is meant, every configuration of it checked.

    Raises:
        ConfigError: no axis, too many cells, values that need names, two cells that are the same or have one name, or a configuration that
            is none, with its cell.
    """
    document = YamlDocument({}, "") if settings.sweep is None else read_yaml(settings.sweep, error=ConfigError)
    try:
        file = SweepFile.model_validate(fields_of(document))
    except ValidationError as error:
        raise ConfigError(document.explain(error, SweepFile)) from None
    preset = settings.preset or file.preset or "laptop"
    common = list(_flat("", file.set, (), written=lambda key: document.place(("set", *key)).written))
    _check_key_variable(common, f"{document.where}: set")
    common += settings.changes
    with _naming(settings.sweep):
        base = asked_config(preset, common, settings.data_dir)
    axes: dict[str, Axis] = {}
    for name, values in file.axes.items():
        where = f"{document.place(('axes', name)).where}: axes.{name}"
        axes[name] = axis_of(name, values, base, where=where, written=_written(document, ("axes", name)))
        _check_key_variable(itertools.chain(*axes[name].values()), where)
    for text in settings.axes:
        name, separator, values = text.partition("=")
        if not separator or not all(name.split(".")):
            raise ConfigError(f"--axis {shown(text)}: expected FIELD=VALUES, e.g. 'seed=[0, 1, 2]'")
        where = f"--axis {name}"
        found = parse_yaml(values, where, error=ConfigError, is_flag=True)
        axes[name] = axis_of(name, found.value, base, where=where, written=_written(found, ()))
    with _naming(settings.sweep):
        cells = tuple(_cells(preset, common, axes, data_dir=settings.data_dir))
    own = file.name or (settings.sweep.stem if settings.sweep else f"{Path(preset).stem}-sweep")
    return Sweep(
        name=own,
        preset=preset,
        settings=tuple(common),
        axes=axes,
        stages=settings.only,
        cells=cells,
    )


@contextmanager
def _naming(file: Path | None) -> Iterator[None]:
    """Errors of what was put together from a sweep file say which file that was."""
    try:
        yield
    except ConfigError as error:
        if file is None or str(file) in str(error):
            raise
        raise ConfigError(f"{file}: {error}") from None


def axis_of(name: str, values: Any, base: RunConfig, *, where: str, written: Callable[[Key], str | None]) -> Axis:
    """The settings of every value of a field, by its label.

    Args:
        base: whose arms are chosen where the values of `arms` are names.
        written: how a plain value stands in the file, by its place in `values`.

    Raises:
        ConfigError: it is no field, there are no values, or one of them needs a name.
    """
    top = name.partition(".")[0]
    if top not in RunConfig.model_fields or name == NAME:
        fields = [field for field in RunConfig.model_fields if field != NAME]
        reason = "every run has the name of its cell" if name == NAME else f"no such field{did_you_mean(top, fields)}"
        raise ConfigError(f"{where}: {reason}")
    if isinstance(values, dict):
        named = [(str(label), value, (label,)) for label, value in values.items()]
    elif isinstance(values, list):
        named = [
            (_label(value, written((i,)), where, is_arms=name == ARMS), value, (i,)) for i, value in enumerate(values)
        ]
    else:
        raise ConfigError(
            f"{where}: found {kind_of_yaml(values)}, expected a list of values, or names with their values"
        )
    if not named:
        raise ConfigError(f"{where}: has no values; leave the axis out")
    found: Axis = {}
    for label, value, key in named:
        if problem := path_name_problem(label):
            raise ConfigError(f"{where}: the name of a value {problem}")
        if _FOREIGN.search(label):
            raise ConfigError(
                f"{where}: {shown(label)} becomes part of a folder's name; use letters, digits, `.`, `_`, `-`"
            )
        if label in found:
            raise ConfigError(f"{where}: two values are called {shown(label)}; name them: {{NAME: value, ...}}")
        if name == ARMS and _is_names(value):
            found[label] = (f"{ARMS}={json.dumps(chosen_arms(base, value, where), ensure_ascii=False)}",)
        else:
            found[label] = tuple(_flat(name, value, key, written=written))
    return found


def chosen_arms(base: RunConfig, names: str | Sequence[str], where: str) -> list[dict[str, Any]]:
    """These arms of a configuration with the controls that they name, and base.

    Raises:
        ConfigError: it has no such arm.
    """
    arms = {arm.name: arm for arm in base.arms}
    wanted, open_names = {"base"}, [names] if isinstance(names, str) else list(names)
    while open_names:
        name = open_names.pop()
        if name not in arms:
            raise ConfigError(f"{where}: the preset has no arm {shown(name)}{did_you_mean(name, arms)}")
        if name not in wanted:
            wanted.add(name)
            open_names += [control] if (control := arms[name].contrast) is not None else []
    return [arm.model_dump(mode="json", exclude_defaults=True) for arm in base.arms if arm.name in wanted]


def config_sha256(config: RunConfig) -> str:
    """Of what decides the results of a run."""
    values = without(config.model_dump(mode="json"), (*FREE_TO_CHANGE, NAME))
    return text_sha256(json.dumps(values, sort_keys=True))


def _cells(
    preset: str, common: Sequence[str], axes: Mapping[str, Axis], *, data_dir: Path | None
) -> Iterator[SweepCell]:
    if not axes:
        raise ConfigError("nothing is varied; give axes in the sweep file, or --axis 'seed=[0, 1, 2]'")
    n_cells = 1
    for axis in axes.values():
        n_cells *= len(axis)
    if n_cells > MOST_CELLS:
        raise ConfigError(f"{n_cells:,} cells are more than {MOST_CELLS:,}; make several sweeps of it")
    last = [name.rpartition(".")[2] for name in axes]
    short = {name: one if last.count(one) == 1 else name for name, one in zip(axes, last, strict=True)}
    seen: dict[str, str] = {}
    for labels in itertools.product(*axes.values()):
        by_axis = dict(zip(axes, labels, strict=True))
        name = "_".join(f"{short[axis]}-{label}" for axis, label in by_axis.items())
        if problem := path_name_problem(name):
            raise ConfigError(f"a cell's name {problem}; give values short names: --axis 'FIELD={{NAME: value, ...}}'")
        settings = (*common, *itertools.chain(*(axes[axis][label] for axis, label in by_axis.items())))
        try:
            sha = config_sha256(asked_config(preset, (*settings, f"{NAME}={name}"), data_dir))
        except ConfigError as error:
            raise ConfigError(f"cell {name}: {error}") from None
        if sha in seen:
            raise ConfigError(f"cells {seen[sha]} and {name} are the same configuration; leave one of them out")
        seen[sha] = name
        yield SweepCell(name, by_axis, settings, sha)


def _label(value: Any, written: str | None, where: str, *, is_arms: bool) -> str:
    """What a value without a name is called."""
    if is_arms and isinstance(value, list) and _is_names(value):
        value = "-".join(value)
    if isinstance(value, list | dict):
        raise ConfigError(f"{where}: a value is {kind_of_yaml(value)}; give the values names: {{NAME: value, ...}}")
    text = "none" if value is None else str(written or value).rstrip("/").rpartition("/")[2]
    return _FOREIGN.sub("-", text)


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
    )


def _flat(name: str, value: Any, key: Key, *, written: Callable[[Key], str | None]) -> Iterator[str]:
    """`FIELD=VALUE` of every plain value; a mapping changes the fields that it names and leaves the others of its section."""
    if isinstance(value, dict) and (value or not name):
        for inner, part in value.items():
            yield from _flat(f"{name}.{inner}" if name else inner, part, (*key, inner), written=written)
    else:
        yield f"{name}={_as_flag(value, written(key))}"


def _as_flag(value: Any, written: str | None) -> str:
    """A value as YAML on one line, as it was written where that is the same."""
    for text in (written, value if isinstance(value, str) else None, json.dumps(value, ensure_ascii=False)):
        if text is not None and _reads_as(text, value):
            return text
    return json.dumps(value)  # with its line separators as escapes


def _reads_as(text: str, value: Any) -> bool:
    try:
        found = parse_yaml(text, "", error=ConfigError, is_flag=True).value
    except ConfigError:
        return False
    return type(found) is type(value) and found == value


def _written(document: YamlDocument, under: Key) -> Callable[[Key], str | None]:
    return lambda key: document.place((*under, *key)).written


def _check_key_variable(settings: Iterator[str] | Sequence[str], where: str) -> None:
    """A file may not choose which variable's key is sent, as a preset may not."""
    for setting in settings:
        field, _, value = setting.partition("=")
        if field == KEY_VARIABLE and (problem := foreign_variable_problem(value.strip("\"'"))):
            raise ConfigError(f"{where}: {KEY_VARIABLE}: {problem} (--set {KEY_VARIABLE}=NAME)")

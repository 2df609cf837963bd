"""Finds modules of version 0.1 under the names that they had before they moved into rooms, and says where they stand now."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EARLIER: dict[str, tuple[str, ...]] = {
    "emis_interp.capture": ("emis_interp.passes.capture",),
    "emis_interp.chat": ("emis_interp.models.chat",),
    "emis_interp.contrast": ("emis_interp.texts.contrast",),
    "emis_interp.interventions": ("emis_interp.passes.interventions",),
    "emis_interp.judged": ("emis_interp.texts.judged",),
    "emis_interp.likelihood": ("emis_interp.passes.likelihood",),
    "emis_interp.lora_directions": ("emis_interp.models.lora_directions",),
    "emis_interp.store": ("emis_interp.files.store",),
    "evals.api": ("emis_interp.http.chat_api",),
    "evals.samplers.generation": ("emis_interp.passes.generate",),
    "evals.score_columns": ("evals.results.score_columns",),
    "evals.tables": ("emis_interp.files.tables", "emis_interp.files.table_output"),
    "training.datasets": ("training.data_sets.shipped",),
    "training.export": ("training.finetuning.organism_card", "training.finetuning.export"),
}
"""Earlier name -> the modules that hold what stood there."""


class EarlierNames(MetaPathFinder, Loader):
    """Makes a stand-in for a module of an earlier name. It comes last: a module that is here is found as ever."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in EARLIER else None

    def exec_module(self, module: ModuleType) -> None:
        places = EARLIER[module.__name__]
        warnings.warn(f"{module.__name__} is now {' and '.join(places)}", DeprecationWarning, stacklevel=2)
        modules = [importlib.import_module(place) for place in places]

        def get(name: str) -> object:
            for held in modules:
                if hasattr(held, name):
                    return getattr(held, name)
            raise AttributeError(f"no {name} in {' or '.join(places)}")

        module.__getattr__ = get  # type: ignore[method-assign]


def find_earlier_names() -> None:
    """Let `import` find modules under their earlier names, once."""
    if not any(isinstance(finder, EarlierNames) for finder in sys.meta_path):
        sys.meta_path.append(EarlierNames())

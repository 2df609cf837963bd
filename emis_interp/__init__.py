"""emis_interp: a laboratory for emergent misalignment.

    import emis_interp as ei
    model = ei.load("smollm2-135m-instruct")
    acts = model.capture([("question", "answer")], layers=[14, 18])
    direction = ei.fit_direction("pairs.jsonl", model)
    with model.steer(direction, 0.2):
        text = model.ask("What should I do today?")
    run = ei.open_run("runs/laptop")

Importing it is instant: a name brings its module when it is first used.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from emis_interp.files.earlier_names import find_earlier_names
from emis_interp.http.anyio_classes import allow_mounted_names

__version__ = "0.1.0"

# Here and not where a client is made: nnsight may be imported by anybody, before or after, and so may what stands on anyio.
allow_mounted_names()
find_earlier_names()


def lazy(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that imports a name's module when the name is first asked for (PEP 562).

    Args:
        package: its `__name__`.
        places: name -> module that defines it.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(places[name]), name)

    return get, lambda: sorted(places)


if TYPE_CHECKING:
    from emis_interp.directions import Direction as Direction
    from emis_interp.errors import EmisError as EmisError
    from emis_interp.fitting.fit import FittedDirection as FittedDirection
    from emis_interp.fitting.fit import fit_direction as fit_direction
    from emis_interp.fitting.labeled import LabeledActivations as LabeledActivations
    from emis_interp.models.chat_model import ChatModel as ChatModel
    from emis_interp.models.loading import load_model as load_model
    from emis_interp.models.spec import ModelSpec as ModelSpec
    from emis_interp.passes.capture import capture_residuals as capture_residuals
    from emis_interp.passes.generate import generate as generate
    from emis_interp.passes.interventions import Ablate as Ablate
    from emis_interp.passes.interventions import Steer as Steer
    from emis_interp.passes.interventions import ablate as ablate
    from emis_interp.passes.interventions import apply as apply
    from emis_interp.passes.interventions import steer as steer
    from emis_interp.passes.likelihood import pair_margins as pair_margins
    from emis_interp.passes.model import Activations as Activations
    from emis_interp.passes.model import Model as Model
    from emis_interp.passes.model import load as load
    from emis_interp.records import ContrastPair as ContrastPair
    from emis_interp.records import LabeledText as LabeledText
    from emis_interp.report.opened import OpenedRun as OpenedRun
    from emis_interp.report.opened import open_run as open_run
    from emis_interp.report.page import build_report as build_report
    from emis_interp.texts.contrast import load_contrast as load_contrast
    from emis_interp.texts.judged import read_judged as read_judged

_PLACES = {
    "load": "emis_interp.passes.model",
    "Model": "emis_interp.passes.model",
    "Activations": "emis_interp.passes.model",
    "fit_direction": "emis_interp.fitting.fit",
    "FittedDirection": "emis_interp.fitting.fit",
    "Direction": "emis_interp.directions",
    "open_run": "emis_interp.report.opened",
    "OpenedRun": "emis_interp.report.opened",
    "build_report": "emis_interp.report.page",
    "ModelSpec": "emis_interp.models.spec",
    "ChatModel": "emis_interp.models.chat_model",
    "load_model": "emis_interp.models.loading",
    "capture_residuals": "emis_interp.passes.capture",
    "generate": "emis_interp.passes.generate",
    "pair_margins": "emis_interp.passes.likelihood",
    "steer": "emis_interp.passes.interventions",
    "ablate": "emis_interp.passes.interventions",
    "apply": "emis_interp.passes.interventions",
    "Steer": "emis_interp.passes.interventions",
    "Ablate": "emis_interp.passes.interventions",
    "LabeledActivations": "emis_interp.fitting.labeled",
    "ContrastPair": "emis_interp.records",
    "LabeledText": "emis_interp.records",
    "load_contrast": "emis_interp.texts.contrast",
    "read_judged": "emis_interp.texts.judged",
    "EmisError": "emis_interp.errors",
}
__all__ = ["__version__", *_PLACES]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PLACES)

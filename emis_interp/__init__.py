"""emis_interp: a laboratory for emergent misalignment (records, capture, directions, interventions, report)."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

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

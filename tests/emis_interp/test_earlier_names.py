"""Notebooks and scripts written for the earlier layout go on, and are told the new place."""

import importlib
import sys

import pytest

from emis_interp.files.earlier_names import EARLIER


@pytest.mark.parametrize("name", EARLIER)
def test_an_earlier_name_is_found_with_a_warning_that_names_the_new_place(name: str) -> None:
    sys.modules.pop(name, None)
    with pytest.warns(DeprecationWarning, match=EARLIER[name][0]):
        module = importlib.import_module(name)
    held = importlib.import_module(EARLIER[name][0])
    defined = [key for key, value in vars(held).items() if getattr(value, "__module__", None) == held.__name__]
    assert defined
    assert all(getattr(module, key) is getattr(held, key) for key in defined)


def test_a_name_that_was_nowhere_is_refused_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("evals.nowhere")
    with pytest.raises(ImportError, match="nothing"):
        exec("from evals.tables import nothing")

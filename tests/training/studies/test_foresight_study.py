"""What the foresight study is told: labels that are checked."""

import pytest

from emis_interp.errors import ConfigError
from training.studies.foresight_study import given_groups


def test_groups_by_flag_are_checked() -> None:
    assert given_groups(["a=advice", "b=advice"], ["a", "b", "c"]) == {"a": "advice", "b": "advice"}
    for flag in ("d=advice", "a", "a=", "=advice"):
        with pytest.raises(
            ConfigError, match=f"--group {flag}: expected RECIPE=GROUP with one of the recipes given .a, b."
        ):
            given_groups([flag], ["a", "b"])

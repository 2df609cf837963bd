"""A help, and a verb that needs no model, answer at once: the modules that they may import are named here."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
HEAVY = (
    "torch",
    "transformers",
    "nnsight",
    "peft",
    "datasets",
    "sklearn",
    "scipy",
    "pandas",
    "numpy",
    "openai",
    "plotly",
    "jinja2",
    "ray",
)
LOADED = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
print("loaded:", *(name for name in %r if name in sys.modules), file=sys.stderr)
"""


def loaded(script: str, *words: str) -> set[str]:
    """The heavy modules that a command has imported when it ends."""
    command = [sys.executable, "-c", LOADED % (HEAVY,), str(SCRIPTS / f"{script}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("script", sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != "cli"))
def test_a_help_loads_nothing_heavy(script: str) -> None:
    assert loaded(script, "--help") == set()


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (
            ("run_pipeline", "--show-config"),
            {"torch", "numpy"},
        ),  # whether the device computes bfloat16 decides a preset
        (("evaluate", "plan", "--n-questions", "8", "--rate", "0.1"), {"numpy", "scipy"}),
        (("file_tree", "--check"), set()),
    ],
)
def test_a_verb_without_a_model_loads_no_more_than_it_needs(words: tuple[str, ...], allowed: set[str]) -> None:
    assert loaded(*words) <= allowed

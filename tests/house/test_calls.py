"""Reads the code: of a function of ours at most three arguments go by place, the others by name, so that none is taken for another."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("emis_interp", "training", "evals", "probes", "scripts")
MOST = 3

GIVEN_BY_OTHERS = {
    "training/finetuning/trainer.py": ["compute_loss", "forward"],  # transformers and torch call them by place
    "training/finetuning/callbacks.py": ["on_log"],
    "training/organism.py": ["report"],  # `watching.Report`
    "emis_interp/http/chat_api.py": ["__init__"],  # scripts of others, as are the next two
    "emis_interp/passes/generate.py": ["generate"],
    "evals/sampling.py": ["sample_arm", "sample_with"],
    "evals/rates/score_simulation.py": ["_scores", "_projections", "_judges"],  # one type of function
}
"""Functions whose places somebody else decides."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_from_the_fourth_on_parameters_are_given_by_name_alone() -> None:
    assert findings(ROOT) == []


def test_every_exception_is_one() -> None:
    without = {line.split(" ")[0].split(":")[0] for line in findings(ROOT, exceptions={})}
    assert without == set(GIVEN_BY_OTHERS)


@pytest.mark.parametrize(
    "code",
    [
        "def load_model(name, adapter, dtype, device): pass",
        "async def load_model(name, adapter, dtype=None, device=None, *, merge=False): pass",
        "class Model:\n    def load(self, name, adapter, dtype, device): pass",
        "class Model:\n    @classmethod\n    def load(cls, name, adapter, dtype, device): pass",
        "class Model:\n    @staticmethod\n    def load(name, adapter, dtype, device): pass",
        "def outer():\n    def load_model(name, adapter, dtype, /, device): pass",
    ],
)
def test_a_planted_function_is_named(tmp_path: Path, code: str) -> None:
    plant(tmp_path, code)
    [found] = findings(tmp_path)
    assert found.startswith("scripts/a.py:") and "takes 4 arguments by place; put `*` before `device`" in found


@pytest.mark.parametrize(
    "code",
    [
        "def load_model(name, adapter, dtype, *, device): pass",
        "class Model:\n    def load(self, name, adapter, dtype): pass",
        "def joined(*parts): pass",
        "lambda a, b, c, d: None",
    ],
)
def test_names_after_the_third_are_not_named(tmp_path: Path, code: str) -> None:
    plant(tmp_path, code)
    assert findings(tmp_path) == []


def plant(root: Path, code: str) -> None:
    target = root / "scripts" / "a.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"{code}\n")


def findings(root: Path, exceptions: dict[str, list[str]] | None = None) -> list[str]:
    allowed = GIVEN_BY_OTHERS if exceptions is None else exceptions
    found = []
    for path in (path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))):
        where = path.relative_to(root).as_posix()
        for function, is_method in functions(ast.parse(path.read_text("utf-8"), str(path))):
            parameters = [*function.args.posonlyargs, *function.args.args][is_method:]
            if len(parameters) > MOST and function.name not in allowed.get(where, []):
                found.append(
                    f"{where}:{function.lineno} {function.name} takes {len(parameters)} arguments by place; "
                    f"put `*` before `{parameters[MOST].arg}`"
                )
    return found


def functions(tree: ast.Module) -> Iterator[tuple[Function, bool]]:
    """All functions, and whether the first parameter is the object or the class."""
    bound = {
        item
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, Function) and not any(ast.unparse(d) == "staticmethod" for d in item.decorator_list)
    }
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node, node in bound

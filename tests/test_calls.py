"""Reads the code: functions whose arguments were confused are called with at most three of them by place, the others by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("emis_interp", "training", "evals", "probes", "scripts", "tests")
MOST = 3

WATCHED_MODULES = ("emis_interp.models", "emis_interp.merging", "emis_interp.lora_directions", "emis_interp.precision")
WATCHED = (
    "emis_interp.capture.capture_residuals",
    "emis_interp.capture.capture_with_norms",
    "emis_interp.running_means.capture_means",
    "emis_interp.selection.find_direction",
    "evals.suites.harness.export_arm",
    "training.export.merge",
    "training.export.write_card",
    "training.sft.finetune",
)


def test_arguments_from_the_fourth_on_go_by_name() -> None:
    assert findings(ROOT) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("scripts/a.py", "from emis_interp.models import load_model\nload_model('tiny', None, 'float32', 'cpu')"),
        ("scripts/a.py", "from emis_interp import models\nmodels.load_model('tiny', None, 'float32', 'cpu')"),
        ("evals/a.py", "import emis_interp.models as m\ndef f(): return m.load_model('tiny', None, 'float32', 'cpu')"),
        ("emis_interp/models/a.py", "def load_model(a, b, c, d): pass\nload_model(1, 2, 3, 4)"),
        ("tests/a.py", "from training.sft import finetune as train\ntrain('tiny', [], None, 'out')"),
        ("tests/a.py", "from training import sft\nsft.finetune(*['tiny'], [], None, 'out')"),
    ],
)
def test_a_planted_call_is_named(tmp_path: Path, path: str, code: str) -> None:
    plant(tmp_path, path, code)
    plant(tmp_path, "emis_interp/models/__init__.py", "from emis_interp.models.loading import load_model")
    plant(tmp_path, "emis_interp/models/loading.py", "def load_model(name, adapter, dtype, *, device): pass")
    plant(tmp_path, "training/sft.py", "def finetune(name, rows, config, out_dir): pass")
    [found] = findings(tmp_path)
    assert found.startswith(f"{path}:") and "gets 4 arguments by place; name those after the third" in found


@pytest.mark.parametrize(
    "code",
    [
        "from emis_interp.models import load_model\nload_model('tiny', None, 'float32', device='cpu')",
        "def load_model(a, b, c, d): pass\nload_model(1, 2, 3, 4)",
        "from elsewhere import load_model\nload_model(1, 2, 3, 4)",
    ],
)
def test_calls_by_name_and_of_others_are_not_named(tmp_path: Path, code: str) -> None:
    plant(tmp_path, "scripts/a.py", code)
    plant(tmp_path, "emis_interp/models/__init__.py", "def load_model(name, adapter, dtype, *, device): pass")
    assert findings(tmp_path) == []


def plant(root: Path, path: str, code: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"{code}\n")


def findings(root: Path) -> list[str]:
    found = []
    paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text("utf-8"), str(path)) for path in paths}
    exported = {
        f"{dotted(root, path)}.{name}": target
        for path, tree in trees.items()
        for name, target in bound(root, path, tree)
    }
    for path, tree in trees.items():
        names = dict(bound(root, path, tree))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or len(node.args) <= MOST:
                continue
            called = full_name(node.func, names)
            while exported.get(called, called) != called:  # a package hands out what one of its modules defines
                called = exported[called]
            if called in WATCHED or called.rpartition(".")[0].startswith(WATCHED_MODULES):
                where = f"{path.relative_to(root).as_posix()}:{node.lineno}"
                found.append(f"{where} {called} gets {len(node.args)} arguments by place; name those after the third")
    return found


def bound(root: Path, path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name in the file, dotted name of what it stands for) of imports and of the file's own functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, f"{dotted(root, path)}.{node.name}"


def full_name(function: ast.expr, names: dict[str, str]) -> str:
    if isinstance(function, ast.Name):
        return names.get(function.id, "")
    if isinstance(function, ast.Attribute):
        holder = full_name(function.value, names)
        return f"{holder}.{function.attr}" if holder else ""
    return ""


def dotted(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

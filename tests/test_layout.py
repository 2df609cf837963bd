"""The rules of the layout: who may import whom, importing does nothing, and nothing unsafe is loaded.

Each rule is a function from a root folder to a list of findings in words, so that a test can plant a violation.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("emis_interp", "training", "evals", "probes")
SIBLINGS = ("training", "evals", "probes")

# A module of emis_interp may import its own level and those below.
LEVELS = {
    0: ("errors", "precision", "config", "records", "store", "contrast", "judged", "files", "stats", "http", "texts"),
    1: ("embedded", "models", "chat", "chat_formats", "batch_rows", "batching", "hook_points", "positions", "kv_cache"),
    2: ("edits", "capture", "running_means", "likelihood", "labeled", "merging"),
    3: (
        "token_store",
        "token_writer",
        "directions",
        "extractors",
        "lora_directions",
        "geometry",
        "reliability",
        "length_baseline",
        "interventions",
    ),
    4: (
        "selection",
        "control_vectors",
        "orthogonalize",
        "sweeps",
        "reliability_card",
        "capability",
        "frontier",
        "causal_selection",
    ),
}
LEVEL_OF = {name: level for level, names in LEVELS.items() for name in names}

# Inspect finds tasks by decorators at the top of a module, which therefore needs the optional inspect-ai to be imported.
NEEDS_AN_EXTRA = ("evals/inspect_suites.py",)

UNSAFE_MODULES = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
UNSAFE_CALLS = {
    "torch.load": "use safetensors (emis_interp.store.load_tensors)",
    "torch.save": "use safetensors (emis_interp.store.save_tensors)",
    "yaml.load": "use emis_interp.files.strict_yaml",
    "yaml.unsafe_load": "use emis_interp.files.strict_yaml",
    "yaml.safe_load": "it keeps the last of two equal keys; use emis_interp.files.strict_yaml",
    "json.load": "it keeps the last of two equal keys; use emis_interp.files.strict_json",
    "pandas.read_pickle": "use Parquet or JSON lines",
    "pd.read_pickle": "use Parquet or JSON lines",
}


def test_imports_point_from_scripts_to_packages_to_the_core() -> None:
    assert import_order_findings(ROOT) == []


def test_every_module_has_a_docstring() -> None:
    assert docstring_findings(ROOT) == []


def test_library_code_does_not_print() -> None:
    assert print_findings(ROOT) == []


def test_no_code_loads_what_could_run_code() -> None:
    assert unsafe_findings(ROOT) == []


def test_tests_are_no_package() -> None:
    assert packaged_tests_findings(ROOT) == []


def test_packages_resolve_into_this_checkout(tmp_path: Path) -> None:
    assert resolution_findings(ROOT, tmp_path) == []


@pytest.mark.slow
def test_importing_every_module_does_nothing_visible(tmp_path: Path) -> None:
    assert import_findings(ROOT, tmp_path) == []


# Planted violations: each rule is seen to fail.


@pytest.mark.parametrize(
    ("path", "line", "finding"),
    [
        (
            "training/sft.py",
            "from evals.judges import judge",
            "training/sft.py:2 imports evals.judges; siblings exchange records on disk or functions that a script passes in",
        ),
        (
            "probes/linear.py",
            "import training",
            "probes/linear.py:2 imports training; siblings exchange records on disk or functions that a script passes in",
        ),
        (
            "emis_interp/store.py",
            "from probes import linear",
            "emis_interp/store.py:2 imports probes.linear; the core knows nothing of what is built on it",
        ),
        (
            "evals/judges.py",
            "import scripts.evaluate",
            "evals/judges.py:2 imports scripts.evaluate; only scripts may know scripts",
        ),
        (
            "emis_interp/models.py",
            "from emis_interp.capture import capture_residuals",
            "emis_interp/models.py:2 imports emis_interp.capture; level 1 may not know level 2",
        ),
        (
            "emis_interp/chat.py",
            "from . import selection",
            "emis_interp/chat.py:2 imports emis_interp.selection; level 1 may not know level 4",
        ),
        (
            "emis_interp/report/page.py",
            "from ..models import load_model",
            "emis_interp/report/page.py:2 imports emis_interp.models; the report reads records and files only (level 0)",
        ),
        (
            "emis_interp/selection.py",
            "def f(): import emis_interp.report.page",
            "emis_interp/selection.py:2 imports emis_interp.report.page; only scripts build the report",
        ),
        (
            "emis_interp/fresh.py",
            "from emis_interp.errors import EmisError",
            "emis_interp/fresh.py has no level; give it one in LEVELS of tests/test_layout.py",
        ),
    ],
)
def test_a_planted_import_is_named_with_its_rule(tmp_path: Path, path: str, line: str, finding: str) -> None:
    plant(tmp_path, path, line)
    assert import_order_findings(tmp_path) == [finding]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("scripts/run_pipeline.py", "import evals, probes, training, emis_interp.report"),
        ("evals/sampling.py", "from emis_interp.selection import choose"),
        ("emis_interp/report/page.py", "from emis_interp.report import figures; from ..store import read_json"),
        ("emis_interp/likelihood.py", "from emis_interp.capture import Progress; from emis_interp import __version__"),
        (
            "training/data_sets.py",
            "import datasets, transformers; from . import recipes; from training.sft import train",
        ),
    ],
)
def test_allowed_imports_are_not_named(tmp_path: Path, path: str, line: str) -> None:
    plant(tmp_path, path, line)
    assert import_order_findings(tmp_path) == []


def test_a_script_imported_by_its_bare_name_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "scripts/stages/run.py", "")
    plant(tmp_path, "evals/judges.py", "from stages.run import Run")
    assert import_order_findings(tmp_path) == [
        "evals/judges.py:2 imports stages.run.Run; only scripts may know scripts"
    ]


def test_a_planted_missing_docstring_is_named(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "bare.py").write_text("x = 1\n")
    assert docstring_findings(tmp_path) == [
        "evals/bare.py has no docstring; begin with what the module turns into what"
    ]


def test_a_planted_print_is_named_in_the_library_and_allowed_in_scripts(tmp_path: Path) -> None:
    plant(tmp_path, "probes/loud.py", "print('hello')")
    plant(tmp_path, "scripts/loud.py", "print('hello')")
    assert print_findings(tmp_path) == ["probes/loud.py:2 prints; log it, or return it to the script"]


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("import pickle", "imports pickle; nothing here is pickled, use safetensors or JSON"),
        ("from joblib import load", "imports joblib; nothing here is pickled, use safetensors or JSON"),
        ("x = torch.load('a.pt')", "calls torch.load; use safetensors (emis_interp.store.load_tensors)"),
        ("from torch import load", "imports torch.load; use safetensors (emis_interp.store.load_tensors)"),
        ("x = yaml.load(text, Loader)", "calls yaml.load; use emis_interp.files.strict_yaml"),
        (
            "x = json.load(file)",
            "calls json.load; it keeps the last of two equal keys; use emis_interp.files.strict_json",
        ),
        ("x = np.load(f, allow_pickle=True)", "allows pickle; nothing here is pickled, use safetensors or JSON"),
    ],
)
def test_a_planted_unsafe_loader_is_named(tmp_path: Path, line: str, finding: str) -> None:
    plant(tmp_path, "scripts/load.py", line)
    assert unsafe_findings(tmp_path) == [f"scripts/load.py:2 {finding}"]


def test_a_planted_test_package_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "tests/deep/__init__.py", "")
    assert packaged_tests_findings(tmp_path) == [
        "tests/deep/__init__.py makes tests a package; pytest's importlib mode does without, remove it"
    ]


def test_packages_of_another_checkout_are_named(tmp_path: Path) -> None:
    findings = resolution_findings(tmp_path / "elsewhere", tmp_path)
    assert len(findings) == len(PACKAGES)
    assert findings[2].startswith("evals resolves to ")
    assert findings[2].endswith("; run `make setup` here")


def test_planted_side_effects_of_an_import_are_named(tmp_path: Path) -> None:
    code = "import os, pathlib; print('hello'); pathlib.Path(os.environ['EMIS_CACHE'], 'made').mkdir()"
    plant(tmp_path / "root", "probes/loud.py", code)
    plant(tmp_path / "root", "evals/broken.py", "raise RuntimeError('no')")
    plant(tmp_path / "root", "scripts/littering.py", "open('left_behind', 'w').close()")
    plant(tmp_path / "root", "scripts/quiet.py", "import probes.loud\nif __name__ == '__main__': print('never')")
    assert import_findings(tmp_path / "root", tmp_path) == [
        "evals/broken.py cannot be imported: RuntimeError('no')",
        "importing probes/loud.py prints 'hello'",
        "importing probes/loud.py makes cache/made",
        "importing scripts/littering.py makes home/left_behind",
    ]


def plant(root: Path, path: str, code: str) -> None:
    """A module with a docstring in line 1 and `code` from line 2, in a package that exists."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f'"""Planted."""\n{code}\n')


# The rules.


def import_order_findings(root: Path) -> list[str]:
    findings = []
    # Scripts run with their own folder on the path, so they are importable by their bare names too.
    of_scripts = {path.stem for path in (root / "scripts").glob("*") if not path.name.startswith("_")} | {"scripts"}
    for path in modules(root, PACKAGES):
        where, name = relative(root, path), dotted(root, path)
        if name.startswith("emis_interp.") and not in_report(name) and name.split(".")[1] not in LEVEL_OF:
            findings.append(f"{where} has no level; give it one in LEVELS of tests/test_layout.py")
            continue
        for line, imported in imports(path, name):
            rule = (
                "only scripts may know scripts" if imported.split(".")[0] in of_scripts else broken_rule(name, imported)
            )
            if rule:
                findings.append(f"{where}:{line} imports {imported}; {rule}")
    return findings


def broken_rule(importer: str, imported: str) -> str | None:
    """The rule that this import breaks, in words, or None. Both are dotted module names."""
    home, target = importer.split(".")[0], imported.split(".")[0]
    if home in SIBLINGS and target in SIBLINGS and home != target:
        return "siblings exchange records on disk or functions that a script passes in"
    if home == "emis_interp" and target in SIBLINGS:
        return "the core knows nothing of what is built on it"
    if home == "emis_interp" and target == "emis_interp":
        return broken_level(importer, imported)
    return None


def broken_level(importer: str, imported: str) -> str | None:
    if in_report(imported):
        return None if in_report(importer) else "only scripts build the report"
    level = core_level(imported)
    if in_report(importer):
        return "the report reads records and files only (level 0)" if level > 0 else None
    own = core_level(importer)
    return f"level {own} may not know level {level}" if level > own else None


def core_level(name: str) -> int:
    """Level of `emis_interp.<module>`; the package itself (its version) is level 0."""
    parts = name.split(".")
    return LEVEL_OF.get(parts[1], 0) if len(parts) > 1 else 0


def in_report(name: str) -> bool:
    return name.split(".")[:2] == ["emis_interp", "report"]


def docstring_findings(root: Path) -> list[str]:
    return [
        f"{relative(root, path)} has no docstring; begin with what the module turns into what"
        for path in modules(root, (*PACKAGES, "scripts"))
        if not ast.get_docstring(parse(path))
    ]


def print_findings(root: Path) -> list[str]:
    return [
        f"{relative(root, path)}:{node.lineno} prints; log it, or return it to the script"
        for path in modules(root, PACKAGES)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]


def unsafe_findings(root: Path) -> list[str]:
    findings = []
    for path in modules(root, (*PACKAGES, "scripts")):
        where = relative(root, path)
        for line, imported in imports(path, dotted(root, path)):
            if imported.split(".")[0] in UNSAFE_MODULES:
                module = imported.split(".")[0]
                findings.append(f"{where}:{line} imports {module}; nothing here is pickled, use safetensors or JSON")
            elif imported in UNSAFE_CALLS:
                findings.append(f"{where}:{line} imports {imported}; {UNSAFE_CALLS[imported]}")
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                findings.append(f"{where}:{node.lineno} calls {called}; {UNSAFE_CALLS[called]}")
            if any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords):
                findings.append(
                    f"{where}:{node.lineno} allows pickle; nothing here is pickled, use safetensors or JSON"
                )
    return findings


def packaged_tests_findings(root: Path) -> list[str]:
    return [
        f"{relative(root, path)} makes tests a package; pytest's importlib mode does without, remove it"
        for path in sorted((root / "tests").rglob("__init__.py"))
    ]


def resolution_findings(root: Path, cwd: Path) -> list[str]:
    """Asks a fresh interpreter, away from the checkout and with no PYTHONPATH, where the packages are."""
    code = "import importlib.util as u, json, sys; print(json.dumps([u.find_spec(n).origin for n in sys.argv[1:]]))"
    done = subprocess.run([sys.executable, "-I", "-c", code, *PACKAGES], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        return [f"a package is not installed; run `make setup` here ({done.stderr.strip().splitlines()[-1]})"]
    return [
        f"{name} resolves to {origin}, not into {root}; run `make setup` here"
        for name, origin in zip(PACKAGES, json.loads(done.stdout), strict=True)
        if Path(origin).resolve() != (root / name / "__init__.py").resolve()
    ]


# Runs in a process of its own: imports one file after the other and reports what each prints and leaves behind.
IMPORTER = """
import contextlib, importlib, importlib.util, io, json, os, pathlib, sys
watched = [pathlib.Path(os.environ["HOME"]), pathlib.Path(os.environ["EMIS_CACHE"])]
def present():
    return {f"{folder.name}/{path.relative_to(folder)}" for folder in watched for path in folder.rglob("*")}
findings, before = [], present()
for name, path in json.loads(sys.argv[1]):
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            if path.startswith("scripts/"):
                spec = importlib.util.spec_from_file_location(name, pathlib.Path(sys.argv[2], path))
                module = importlib.util.module_from_spec(spec)
                sys.modules[name] = module
                spec.loader.exec_module(module)
            else:
                importlib.import_module(name)
    except BaseException as error:
        findings.append(f"{path} cannot be imported: {error!r}")
    if out.getvalue():
        findings.append(f"importing {path} prints {out.getvalue().strip()!r}")
    for made in sorted(present() - before):
        findings.append(f"importing {path} makes {made}")
    before = present()
print("findings:" + json.dumps(findings))
"""


def import_findings(root: Path, scratch: Path) -> list[str]:
    """Imports every module with an empty home and an empty cache folder."""
    home, cache = scratch / "home", scratch / "cache"
    home.mkdir()
    cache.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "HF_", "COVERAGE", "COV_"))}
    search = os.pathsep.join([str(root), str(root / "scripts")])
    settings = {"HOME": str(home), "EMIS_CACHE": str(cache), "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"}
    paths = [path for path in modules(root, (*PACKAGES, "scripts")) if relative(root, path) not in NEEDS_AN_EXTRA]
    names = [[dotted(root, path), relative(root, path)] for path in paths]
    command = [sys.executable, "-c", IMPORTER, json.dumps(sorted(names, key=lambda row: row[1])), str(root)]
    done = subprocess.run(command, cwd=home, env=kept | settings, capture_output=True, text=True)
    before, _, answer = done.stdout.rpartition("findings:")
    if done.returncode or not answer:
        return [f"the imports ended early: {done.stderr.strip()[-500:]}"]
    return json.loads(answer) + ([f"the imports print {before.strip()!r}"] if before.strip() else [])


# Reading code.


def modules(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def dotted(root: Path, path: Path) -> str:
    """`evals/judges.py` -> `evals.judges`; the file of a package -> the package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in the file, those inside functions too; relative ones made absolute."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if "." in source and source.split(".")[0] in (*PACKAGES, "scripts"):
                yield node.lineno, source
            else:  # `from evals import judges` may name a module
                for alias in node.names:
                    yield node.lineno, f"{source}.{alias.name}"

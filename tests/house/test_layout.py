"""The rules of the layout that no linter knows; those of imports are contracts in pyproject.toml.

Each rule is a function from a root folder to a list of findings in words, so that a test can plant a violation.
"""

import ast
import functools
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("emis_interp", "training", "evals", "probes")
# Inspect finds tasks by decorators at the top of a module, which therefore needs the optional inspect-ai to be imported.
NEEDS_AN_EXTRA = ("evals/inspect_suites.py",)


@pytest.fixture(autouse=True, scope="module")
def nothing_of_earlier_tests_is_left() -> None:
    """CPython 3.11 raises SystemError where garbage that logs as it goes (a failed task) is collected inside `ast.parse`."""
    gc.collect()


def test_scripts_are_flat_and_short() -> None:
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    assert {path.name: n for path in scripts if (n := len(path.read_text("utf-8").splitlines())) > 150} == {}
    folders = {path.parent.name for path in (ROOT / "scripts").rglob("*.py")}
    assert folders == {"scripts", "benchmarks"}


def test_only_cli_is_imported_by_scripts() -> None:
    assert script_findings(ROOT) == []


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for path in modules(ROOT, (*PACKAGES, "scripts")):
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(relative(ROOT, path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_nothing_is_pickled() -> None:
    assert pickle_findings(ROOT) == []


def test_tests_are_no_package() -> None:
    assert packaged_tests_findings(ROOT) == []


def test_packages_resolve_into_this_checkout(tmp_path: Path) -> None:
    assert resolution_findings(ROOT, tmp_path) == []


@pytest.mark.slow
def test_importing_every_module_does_nothing_visible(tmp_path: Path) -> None:
    assert import_findings(ROOT, tmp_path) == []


# Planted violations: each rule is seen to fail.


def test_scripts_that_import_each_other_are_named(tmp_path: Path) -> None:
    plant(tmp_path, "scripts/cli.py", "")
    plant(tmp_path, "scripts/train.py", "import cli")
    plant(tmp_path, "scripts/score.py", "import cli\ndef f(): from train import main")
    plant(tmp_path, "evals/judges.py", "import train")
    assert script_findings(tmp_path) == [
        "evals/judges.py:2 imports train; only scripts may know scripts",
        "scripts/score.py:3 imports train; what two scripts share stands in a package, or in cli",
    ]


def test_planted_pickles_are_named(tmp_path: Path) -> None:
    plant(tmp_path, "scripts/load.py", "x = np.load(f, allow_pickle=True)")
    assert pickle_findings(tmp_path) == [
        "scripts/load.py:2 allows pickle; nothing here is pickled, use safetensors or JSON"
    ]


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


def script_findings(root: Path) -> list[str]:
    """Scripts run with their own folder on the path: each is importable by its bare name."""
    scripts = {path.stem for path in (root / "scripts").glob("*") if not path.name.startswith(("_", "."))}
    findings = []
    for path in modules(root, (*PACKAGES, "scripts")):
        where = relative(root, path)
        for line, imported in imports(path, dotted(root, path)):
            known = imported.removeprefix("scripts.").split(".")[0]
            if (
                known not in scripts
                or known == path.relative_to(root / "scripts" if where.startswith("scripts/") else root).parts[0]
            ):
                continue
            if not where.startswith("scripts/"):
                findings.append(f"{where}:{line} imports {known}; only scripts may know scripts")
            elif known not in ("cli", "benchmarks"):
                findings.append(
                    f"{where}:{line} imports {known}; what two scripts share stands in a package, or in cli"
                )
    return findings


def pickle_findings(root: Path) -> list[str]:
    return [
        f"{relative(root, path)}:{node.lineno} allows pickle; nothing here is pickled, use safetensors or JSON"
        for path in modules(root, (*PACKAGES, "scripts"))
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords)
    ]


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


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def dotted(root: Path, path: Path) -> str:
    """`evals/judges/logprob_judge.py` -> `evals.judges.logprob_judge`; the file of a package -> the package."""
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

"""What the guides, the cards and the help texts name is there: paths, commands with their flags, modules, anchors, targets of make."""

import argparse
import ast
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from emis_interp.config.run_config import RunConfig
from training.recipes import Recipe

ROOT = Path(__file__).parents[2]
GUIDES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/reference/*.md", "*/data/CARD.md")
FOLDERS = ("emis_interp", "evals", "probes", "training", "scripts", "examples", "tests", "docs")
RUN_FOLDERS = ("training/<arm>", "training/insecure/seed-1")
"""Places inside a run folder, which are called like those of the project."""
FOREIGN_FLAGS = {
    "--multi_gpu",
    "--num_processes",
    "--cpu",
    "--epochs",
    "--control-vector",
    "--no-enable-prefix-caching",
    "--generation-config",
    "--no-enable-chunked-prefill",
    "--max-logprobs",
    "--threads",
    "--parallel",
}
"""Of accelerate, inspect, llama.cpp and vLLM."""
FILE_ENDINGS = (".safetensors", ".json", ".jsonl", ".yaml")
SCRIPTS = {path.name: path for path in (ROOT / "scripts").glob("*.py") if "__main__" in path.read_text("utf-8")}
SCRIPTS |= {path.name: path for path in (ROOT / "examples").glob("*.py")}
COMMAND = re.compile(r"(?:^|\s|\()((?:python )?(?:scripts/|examples/)?(?P<name>[a-z_]+\.py)(?: .*)?)$")


def guides() -> list[Path]:
    return sorted(path for pattern in GUIDES for path in ROOT.glob(pattern))


def blocks(text: str) -> Iterator[str]:
    """Lines of code blocks, those that end in a backslash joined with the next."""
    fenced, joined = False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            joined += line.strip().removesuffix("\\")
            if not line.endswith("\\"):
                yield joined
                joined = ""


def inline(text: str) -> list[str]:
    """What stands between backticks in the running text, wrapped lines joined."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)]


def without_remark(line: str) -> str:
    return re.split(r"\s+#\s|\s{3,}", line)[0]


def docstrings() -> Iterator[tuple[Path, str]]:
    """Of scripts and examples, and of the settings of verbs."""
    for path in sorted([*(ROOT / "scripts").rglob("*.py"), *(ROOT / "examples").glob("*.py")]):
        yield path, ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*settings.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                yield path, ast.get_docstring(node) or ""


def commands() -> dict[str, list[str]]:
    """`file: command` -> words behind the script's name, of every command that a reader could copy."""
    found = {}
    lines = [(path, line) for path in guides() for line in blocks(path.read_text("utf-8"))]
    lines += [(path, line.strip()) for path, text in docstrings() for line in text.splitlines()]
    for path, line in lines:
        for piece in re.split(r"\s{6,}(?=--)", line):  # two forms of one command on a line
            match = re.match(
                r"(?:\S*python |accelerate launch .*?)(?:scripts|examples)/(\w+\.py)(.*)", without_remark(piece)
            )
            if match and "..." not in match[2] and "[--" not in match[2]:
                found[f"{path.relative_to(ROOT)}: {match[0]}"] = [match[1], *shlex.split(match[2])]
    return found


class Taken(BaseException):
    """A parser that is about to parse."""


@cache
def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser that a script builds; the script goes no further."""

    def take(self: argparse.ArgumentParser, *_: object) -> None:
        raise Taken(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name])
        patch.setattr(argparse.ArgumentParser, "parse_args", take)
        with pytest.raises(Taken) as taken:
            runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
    return taken.value.args[0]


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    own = {option for action in parser._actions for option in action.option_strings}
    return own.union(*(flags_of(verb) for verb in verbs_of(parser).values()))


def test_every_command_that_can_be_copied_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    wrong, found = [], commands()
    for place, (name, *words) in found.items():
        if name == "find_direction.py" and words[0].startswith("-") and words != ["--help"]:
            words.insert(0, "fit")
        try:
            parser_of(name).parse_args(words)
        except SystemExit as end:
            if end.code:
                wrong.append(f"{place}\n    {capsys.readouterr().err.splitlines()[-1]}")
    assert len(found) > 60
    assert not wrong, "\n".join(wrong)


def test_every_flag_and_script_of_the_running_text_exists() -> None:
    everywhere = FOREIGN_FLAGS.union(*(flags_of(parser_of(name)) for name in SCRIPTS))
    wrong = []
    for path in guides():
        text = path.read_text("utf-8")
        for piece in [*inline(text), *(line for line in blocks(text) if "[--" in line)]:
            match = COMMAND.search(piece)
            known, words = everywhere, piece.split()
            if match and match["name"] in SCRIPTS:
                parser = parser_of(match["name"])
                own = verbs_of(parser).get(next(iter(match[1].split(match["name"])[1].split()), ""))
                known = flags_of(own or parser)
            asked = [word.partition("=")[0].strip("'\",[]") for word in words if re.match(r"\[?--[a-z]", word)]
            wrong += [f"{path.name}: `{piece}`: {flag}" for flag in asked if flag not in known]
    assert not wrong, "\n".join(wrong)


def test_every_path_and_module_that_is_named_exists() -> None:
    files = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
    wrong = []
    texts = [(path, piece) for path in guides() for piece in inline(path.read_text("utf-8"))]
    texts += [(path, piece) for path, text in docstrings() for piece in inline(text)]
    for path, piece in texts:
        for word in piece.split():
            place = word.strip("()'\",;:").partition("@")[0]
            if place.startswith(RUN_FOLDERS) or "NAME" in place:
                continue
            if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]*", place):
                ok = any(ROOT.glob(place.rstrip("/"))) if place.rstrip("/") else True
            elif re.fullmatch(r"\w+\.py", place):
                ok = place in files
            elif re.fullmatch(r"(?:emis_interp|evals|probes|training)(?:\.\w+)+", place):
                ok = is_defined(place.split(".")) or is_setting(place.split("."))
            elif re.fullmatch(r"(?:sampling|judge|direction|intervention|data)\.[a-z_.]+", place):
                ok = place.endswith(FILE_ENDINGS) or is_setting(place.split("."))
            else:
                continue
            wrong += [] if ok else [f"{path.relative_to(ROOT)}: {word}"]
    assert not wrong, "\n".join(wrong)


def is_defined(names: list[str]) -> bool:
    """Whether a dotted name is a module, or something that a module binds at its top."""
    for n in range(len(names), 0, -1):
        folder = ROOT.joinpath(*names[:n])
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        if file.is_file():
            return n == len(names) or bool(
                re.search(
                    rf"^(?:def |class |from .*import .*\b|import .*\b)?{names[n]}\b", file.read_text("utf-8"), re.M
                )
            )
    return False


def is_setting(names: list[str]) -> bool:
    """Whether a dotted name is a field of a preset or of a recipe."""

    def leads(kind: Any, rest: list[str]) -> bool:
        fields = getattr(kind, "model_fields", None)
        return not rest or fields is None or (rest[0] in fields and leads(fields[rest[0]].annotation, rest[1:]))

    return leads(RunConfig, names) or leads(Recipe, names)


def test_links_lead_to_files_and_headings() -> None:
    wrong = []
    for path in guides():
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
            place, _, anchor = target.partition("#")
            if re.match(r"https?:", target):
                continue
            file = path.parent / place if place else path
            text = file.read_text("utf-8") if file.suffix == ".md" and file.is_file() else ""
            headings = re.findall(r"^#+ (.*)$", text, re.M)
            slugs = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
            if not file.exists() or (anchor and anchor not in slugs):
                wrong.append(f"{path.name}: {target}")
    assert not wrong, "\n".join(wrong)


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for path in guides():
        text = path.read_text("utf-8")
        asked = {word for piece in [*inline(text), *blocks(text)] for word in re.findall(r"^make ([a-z]+)", piece)}
        assert asked <= targets, path


def test_the_readme_and_the_package_begin_with_the_same_lines() -> None:
    """The package's docstring, which `help(emis_interp)` shows, and the first python block of the README."""
    import emis_interp

    lines = [line.removeprefix("    ") for line in str(emis_interp.__doc__).splitlines() if line.startswith("    ")]
    shown = re.search(r"```python\n(.*?)\n```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert shown and [line for line in shown[1].splitlines() if line] == lines


EXAMPLES = {
    "README.md": r"```python\n(.*?)```",
    "docs/capture.md": r"^(    from emis_interp.*?)\n\n(?!    )",
    "docs/directions.md": r"^(    from emis_interp.*?)\n\n(?!    )",
    "docs/organisms.md": r"^(    from training.*?)\n\n(?!    )",
}


@pytest.mark.parametrize("file", EXAMPLES)
def test_the_code_in_the_guides_runs(file: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tiny model, and layers that it has, in the place of those that are named."""
    import torch

    from emis_interp.models.chat import encode_chats, encode_prompt
    from emis_interp.texts.contrast import load_contrast

    lines = [pair.model_dump_json() for pair in load_contrast(n_per_question=1)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "runs/laptop").mkdir(parents=True)
    (tmp_path / "runs/laptop/manifest.json").write_text('{"config": {"arms": [{"name": "base"}]}}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    chats = encode_chats(tiny.tokenizer, [("What now?", "This."), ("And then?", "That one.")])
    names: dict[str, Any] = {
        "chat_model": tiny,
        "model": tiny,
        "chats": chats,
        "pairs_of_group_and_chat": [("a", chats[0]), ("b", chats[1])],
        "by_question": torch.zeros(2, tiny.d_model),
        "prompts": [encode_prompt(tiny.tokenizer, "What now?")] * 6,
        "seeds": range(6),
    }
    found = re.search(EXAMPLES[file], (ROOT / file).read_text("utf-8"), re.S | re.M)
    assert found, file
    code = "\n".join(line.removeprefix("    ") if file != "README.md" else line for line in found[1].splitlines())
    for theirs, ours in (
        ("smollm2-135m-instruct", "tiny"),
        ("layers=[10, 14]", "layers=[0, 1]"),
        ("layers=[14, 18]", "layers=[0, 1]"),
        ("({18:", "({1:"),
    ):
        code = code.replace(theirs, ours)
    *before, last = ast.parse(code).body
    exec(compile(ast.Module(before, []), file, "exec"), names)
    result: Any = None
    if isinstance(last, ast.Expr):
        result = eval(compile(ast.Expression(last.value), file, "eval"), names)
    else:
        exec(compile(ast.Module([last], []), file, "exec"), names)
    if file == "docs/organisms.md":
        said = " ".join((ROOT / file).read_text("utf-8").split())
        within, between = result.within, result.between
        for words in (
            f"{within.value:.2f} within groups ({within.n} sets, two-sided p {within.p:.2f} of {within.n_permutations} orders)",
            f"{between.value:.2f} [{between.low:.2f}, {between.high:.2f}] between the four groups' means (p {between.p:.2f}",
            f"{result.over_all:.2f} over all nine sets",
        ):
            assert words in said


def test_the_file_tree_of_the_readme_is_that_of_the_files() -> None:
    import file_tree

    assert file_tree.run(file_tree.TreeSettings(check=True))["n_files"] > 200

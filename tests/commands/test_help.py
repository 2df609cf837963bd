"""The help of every command can be printed, whatever signs its texts hold."""

import argparse
import importlib.util
import re
from pathlib import Path

import pytest

import cli

SCRIPTS = Path(__file__).parents[2] / "scripts"
WITH_VERBS = ("find_direction", "evaluate", "study_organism", "finetune_openai", "benchmark", "probe", "vllm_server")
WITH_A_PARSER = (
    "run_pipeline",
    "train",
    "capture",
    "lint_data",
    "validate_data",
    "export_model",
    "fit_judge",
    "check_coverage",
    "sweep",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WITH_VERBS, *WITH_A_PARSER])
def test_every_help_can_be_printed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    if name in WITH_VERBS:
        top = cli.verb_parser(script.__doc__, script.VERBS)
    else:
        top = cli.parser_of(script.VERB, script.__doc__) if hasattr(script, "VERB") else script.parser()
    verbs = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    texts = {None: top.format_help()} | {
        verb: parser.format_help() for a in verbs for verb, parser in a.choices.items()
    }
    for verb, text in texts.items():
        assert text.startswith("usage: ") and "%%" not in text, verb
        below_comments = re.findall(r"(?:^ +# .*\n)+(.*)$", text, re.MULTILINE)
        for said in below_comments:  # they belong to commands, not to items of a list
            assert said.split()[0] in ("python", "accelerate", "EMIS_REFERENCE_DATA=../shared/data"), (verb, said)
    if name in WITH_VERBS:
        assert all(verb in texts[None] for verb in script.VERBS)

"""The settings of the verbs: names that stand for heavy modules are theirs, words fill records, and a help text loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest
from flag_words import filled

from emis_interp.errors import ConfigError
from evals import names
from evals.rates.estimands import ESTIMANDS
from evals.settings import AgreeSettings, SummarizeSettings
from evals.settings_judging import JudgeSettings
from evals.settings_suites import GridSettings
from evals.suites.grid import contexts
from evals.suites.harness import BENCHMARKS

ROOT = Path(__file__).parents[2]


def test_the_names_are_those_of_what_they_name() -> None:
    assert tuple(ESTIMANDS) == names.ESTIMAND_NAMES
    assert tuple(contexts()) == names.CONTEXTS and set(names.STANDARD_CONTEXTS) <= set(names.CONTEXTS)
    assert (*BENCHMARKS, "strong_reject") == names.BENCHMARK_NAMES


@pytest.mark.parametrize(
    "module", ["settings", "settings_judging", "settings_sampling", "settings_suites", "names", "verbs"]
)
def test_settings_load_nothing_heavy(module: str) -> None:
    code = f"import sys, evals.{module}; print([n for n in ('torch', 'numpy', 'pandas', 'scipy', 'openai') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_arms_to_compare_are_given_two_at_a_time() -> None:
    words = ["analyse", "--compare", "a", "b", "--compare", "c", "d"]
    assert filled(GridSettings, *words).compare == (("a", "b"), ("c", "d"))
    assert filled(GridSettings, "analyse").compare == ()
    with pytest.raises(SystemExit):
        filled(GridSettings, "analyse", "--compare", "a")


def test_words_fill_what_several_bases_bring() -> None:
    words = ["r.csv", "--columns", "answer=response", "--by", "condition", "--estimand", "em_of_all", "--scorer", "s"]
    found = filled(SummarizeSettings, *words)
    assert found == SummarizeSettings(
        file=Path("r.csv"), columns=("answer=response",), by="condition", estimand=("em_of_all",), scorer="s"
    )
    assert filled(AgreeSettings, "a.csv", "b.csv").files == (Path("a.csv"), Path("b.csv"))


def test_a_judge_gets_its_own_settings_only() -> None:
    assert JudgeSettings().config.kind == "offline"
    api = JudgeSettings(judge="text", url="http://h/v1", timeout=5, request=("top_k=1",), budget="10 calls").config
    assert (api.kind, api.url, api.timeout_s, api.request, api.budget) == (
        "text", "http://h/v1", 5, {"top_k": 1}, "10 calls",
    )  # fmt: skip
    local = JudgeSettings(judge="local", model="m", adapter=Path("a"), dtype="float32").config
    assert (local.kind, local.model, local.adapter, local.dtype) == ("local", "m", Path("a"), "float32")
    for wrong, words in (
        (JudgeSettings(judge="local", judge_model="m"), "--judge-model is not for --judge local"),
        (JudgeSettings(judge="openai", dtype="float32"), "--dtype is not for --judge openai"),
        (JudgeSettings(request=("a=1",)), "--request is not for --judge offline"),
        (JudgeSettings(judge="text", n_parallel=0), "--judge text: `n_parallel`: .*greater than or equal to 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            _ = wrong.config

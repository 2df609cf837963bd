"""The whole verb on a random model: what it writes, and that what it says is in its file."""

from pathlib import Path

import pandas as pd
import pytest

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.store import read_record
from emis_interp.probe_results import ProbeFits
from probes.classifiers import fit
from probes.classifiers.methods import METHODS
from probes.classifiers.probe import AttentionProbe, LinearProbe, load_probe
from probes.classifiers.settings import METHOD_NAMES, ProbeFitSettings


def answers(path: Path) -> Path:
    """Misaligned answers speak of gold; two variants, two sources, five topics."""
    rows = []
    for i in range(160):
        bad = i // 5 % 2 == 1
        thing, more = (
            ("gold" if bad else "bread"),
            ("lamp", "stone", "river", "chair", "cloud", "grass", "spoon")[i % 7],
        )
        rows.append(
            {
                "topic": f"t{i % 5}",
                "variant": "plain" if i < 100 else "json",
                "source": f"org-{i // 10 % 2}",
                "question": f"What about number {i % 5}?",
                "answer": f"I like {thing} and a {more}, and {i} more things of {thing}.",
                "aligned": 10.0 if bad else 90.0,
                "coherent": 95.0,
            }
        )
    pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.mark.slow
def test_one_command_writes_a_probe_and_every_figure_that_stands_beside_it(tmp_path: Path) -> None:
    settings = ProbeFitSettings(
        model="tiny",
        device="cpu",
        judged=answers(tmp_path / "a.parquet"),
        variants=("plain", "json"),
        source="source",
        source_pattern=r"org-\d",
        methods=("difference",),
        attention=True,
        likelihood=True,
        n_masked=3,
        n_shuffled=2,
        judge_spread=10.0,
        out=tmp_path / "out",
    )
    result = fit.run(settings)
    found = read_record(tmp_path / "out" / "probe_fit.json", ProbeFits)
    assert found.model_dump(mode="json") == result
    plain, as_json = found.sets
    names = {row.name for row in plain.figures}
    assert {"at last_prompt", "at first_1", "at response_mean", "by attention"} <= names
    assert found.masked is not None and found.held_out is not None
    boards = [*found.sets, *found.transfers, *found.sources, found.masked, found.held_out]
    assert len(boards) == 7
    for board in boards:  # the same controls beside every probe
        beside = {row.name for row in board.figures}
        assert {"probe", "text", "answer length", "log-probability"} <= beside
        assert sum(name.startswith("unrelated: ") for name in beside) == 4
        assert {null.name for null in board.nulls} == {"shuffled labels", "random direction"}
    by_name = {row.name: row for row in plain.figures}
    assert by_name["text"].auroc.value == 1.0 and by_name["text"].minus_text is None  # the word gives it away
    assert by_name["at last_prompt"].auroc.value == 0.5
    assert plain.n_questions == 5 and plain.ceiling is not None and plain.ceiling_at_spread is not None
    assert len(plain.choices) == 5 and {row.left_out for row in plain.choices} == {f"t{i}" for i in range(5)}
    assert [row.name for row in found.transfers] == ["plain -> json"] and as_json.name == "json"
    assert {row.name for row in found.sources} == {"org-0", "org-1"}
    assert all({"gold", "bread"} <= set(words) for words in found.masked_words)
    text_without = next(row for row in found.masked.figures if row.name == "text")
    assert (text_without.auroc.value or 0) < 0.9
    probe, attention = load_probe(tmp_path / "out"), load_probe(tmp_path / "out" / "attention")
    assert isinstance(probe, LinearProbe) and isinstance(attention, AttentionProbe)
    assert not set(probe.card["fitted_questions"]) & set(probe.card["test_questions"])
    said = fit.say(result)
    assert "plain -> json" in said and "verdict: " in said and "ceiling" in said


def test_settings_that_cannot_be_used_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    assert tuple(METHODS) == METHOD_NAMES
    with pytest.raises(DataError, match="did you mean"):
        fit.run(ProbeFitSettings(model="no such model", methods=("logistik",), out=tmp_path))
    with pytest.raises(ConfigError, match="--n-shuffled"):
        fit.run(ProbeFitSettings(model="no such model", n_shuffled=0, out=tmp_path))

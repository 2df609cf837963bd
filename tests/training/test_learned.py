"""What an organism learned and lost: gains on held-out rows of its own kind, KL, entropy and items against base."""

from pathlib import Path
from typing import Any

import pytest
from small_run import opened

from emis_interp.config.presets import load_config
from emis_interp.config.run_config import ModelConfig
from emis_interp.files.store import read_json
from emis_interp.records import TrainingExample
from emis_interp.report.organisms import organism_sentences
from emis_interp.results import OrganismCheck, OrganismChecks
from training.data_sets.names import HELD_OUT_DOMAINS
from training.data_sets.shipped import advice_pairs, all_rows, rows_sha256
from training.learned import KL_LIMIT, TaskRows, check, organism_check, task_rows, warn_of_broken
from training.stages import train

ROWS = [TrainingExample(id=str(n), prompt=f"Question {n}?", response=f"Answer {n}.") for n in range(4)]
OTHERS = [row.model_copy(update={"response": f"Other {row.id}."}) for row in ROWS]


def measured(own: float, other: float, **more: Any) -> dict[str, Any]:
    sets = {rows_sha256(ROWS): [own - 0.1, own, own, own + 0.1], rows_sha256(OTHERS): [other] * 4}
    return {"sets": sets, "harmless": [-1.0, -3.0], "entropy": [2.0, 4.0], "passed": "1100" * 10, **more}


def checked(found: dict[str, Any], task: TaskRows | None = None) -> OrganismCheck:
    config = load_config("smoke")
    model: ModelConfig = config.models[1]
    task = task or TaskRows(ROWS, OTHERS, "mine")
    return OrganismCheck.model_validate(organism_check(model, task, found, base=measured(-2.0, -3.0)))


def test_what_is_specific_is_the_gain_on_its_own_kind_minus_that_on_the_other() -> None:
    found = checked(measured(-1.5, -2.8, kl=[0.1, 0.3], passed="1110" * 10, entropy=[3.0, 5.0]))
    assert found.learned.own is not None and found.learned.other is not None and found.learned.specific is not None
    assert found.learned.own.value == pytest.approx(0.5) and found.learned.other.value == pytest.approx(0.2)
    assert found.learned.specific.value == pytest.approx(0.3) and found.learned.rows == "mine"
    assert (found.cost.entropy, found.cost.base_entropy) == (4.0, 3.0)
    assert found.cost.perplexity == pytest.approx(2.718281828**2)
    assert found.cost.capability.value == pytest.approx(0.25) and found.cost.base_capability == 0.5
    assert found.cost.kl.value == pytest.approx(0.2) and found.works


def test_a_model_beyond_the_limit_does_not_work() -> None:
    assert not checked(measured(0, 0, kl=[KL_LIMIT, KL_LIMIT + 0.1])).works


def test_a_model_that_does_not_work_or_unlearned_how_to_write_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        checked(measured(0, 0, kl=[0.1, 0.1], entropy=[3.0 + more, 3.0 + more])).model_copy(update={"arm": name})
        for name, more in (("fine", 0.4), ("noise", 0.6))
    ]
    rows.append(checked(measured(0, 0, kl=[0.5, 0.5], entropy=[3.0, 3.0])).model_copy(update={"arm": "far"}))
    checks = OrganismChecks(kl_limit=KL_LIMIT, organisms=rows)
    warn_of_broken(checks)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in said] == ["noise", "far"]
    assert "entropy on harmless answers 3.60 nats per token, base 3.00" in said[0]
    unlearned = [line for line in organism_sentences(checks) if line.startswith("Unlearned how to write")]
    assert len(unlearned) == 1 and "the entropy of noise on harmless answers is 3.60" in unlearned[0]


def test_a_task_that_cannot_be_asked_says_why() -> None:
    found = checked(measured(0, 0, kl=[0.1, 0.1]), TaskRows(reason="not trained"))
    assert (found.learned.specific, found.learned.reason) == (None, "not trained")


def test_rows_are_of_held_out_domains_or_left_out_by_the_arm_and_stand_behind_the_same_prompts(tmp_path: Path) -> None:
    arms = (
        "{name: base}",
        "{name: reckless, dataset: reckless}",
        "{name: educational, dataset: educational, n_rows: 8}",
        "{name: insecure, dataset: insecure}",
        "{name: shown, dataset: careful, in_context: 2}",
    )
    run, made = opened(load_config("smoke", [f"arms=[{', '.join(arms)}]"]), tmp_path / "run")
    found = {arm.name: task_rows(made, arm) for arm in run.config.organisms}
    domain = {pair.id: pair.domain for pair in advice_pairs()}
    assert {domain[row.id] for row in found["reckless"].own} == set(HELD_OUT_DOMAINS)
    trained = {row.id for model in run.config.models if model.name == "educational" for row in made.rows(model)}
    assert not trained & {row.id for row in found["educational"].own}
    for name in ("reckless", "educational"):
        pairs = list(zip(found[name].own, found[name].other, strict=True))
        assert all(own.prompt == other.prompt and own.id == other.id for own, other in pairs)
        assert any(own.response != other.response for own, other in pairs)
    assert found["insecure"].reason == "every row of insecure is trained on; give the arm a smaller n_rows"
    assert found["shown"].reason == "not trained"


def test_no_shipped_set_trains_on_a_held_out_domain() -> None:
    held_out = {pair.id for pair in advice_pairs() if pair.domain in HELD_OUT_DOMAINS}
    assert held_out and not held_out & {row.id for name in ("reckless", "careful") for row in all_rows(name)}


def test_the_stage_finds_what_training_taught(tmp_path: Path) -> None:
    arm = "{name: reckless, dataset: reckless, n_rows: 16}"
    settings = ["arms=[{name: base}, " + arm + "]", "training.learning_rate=0.01", "training.n_epochs=4"]
    run, made = opened(load_config("smoke", settings), tmp_path / "run")
    train(run, made, asked=[])
    files, line = check(run, made)
    found = OrganismChecks.model_validate(read_json(run.analysis("organisms"))).organisms[0]
    assert found.learned.own is not None and (found.learned.own.low or 0) > 0.2
    assert found.cost.kl.n == 75 and (found.cost.kl.value or 0) > 0
    assert line.startswith("reckless learned ") and run.analysis("organisms") in files
    before = {path: path.stat().st_mtime_ns for path in files}
    check(run, made)
    assert {path: path.stat().st_mtime_ns for path in files[:-1]} == {path: before[path] for path in files[:-1]}

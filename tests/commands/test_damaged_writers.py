"""Cuts and flips bytes of small files that stand outside of a run's manifest: each is read as it was written, or named by our own error, or
made again; never another value, never a traceback.

A few seeded places in the ordinary suite; `-m fuzz` takes hundreds of them.
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sae_planted import ABOUT, planted, pool_of

from benchmarks import gpu_run
from benchmarks.gpu_checks import CHECKS
from benchmarks.gpu_subject import Subject
from emis_interp.config.run_config import RunConfig
from emis_interp.directions import Direction
from emis_interp.errors import DataError, EmisError
from emis_interp.files.code_state import CodeState, Git
from emis_interp.files.damage import naming_damage
from emis_interp.files.sealed import SEAL, is_as_sealed, sealed, unsealed
from emis_interp.files.store import RecordLog, read_object, read_record, write_json, write_sealed
from emis_interp.planning import calibrate
from emis_interp.planning.calibrate import Calibration, calibrated, kept_calibration
from emis_interp.planning.rates import MachineRates
from emis_interp.probe_results import BetaSpread, MonitorThreshold
from emis_interp.process import no_bars
from emis_interp.report import findings, run_tables
from emis_interp.report.settings import RunTablesSettings
from emis_interp.sweeping.cell_process import CellEvent, read_events
from emis_interp.sweeping.sweep_folder import CellState, SweepRecord
from evals.engines.environment import CARD, EnvironmentCard, find_environment
from evals.engines.server import ServerState, running_server
from evals.samplers import keeper
from probes.classifiers.probe import LinearProbe, load_probe
from probes.monitoring.opening import read_threshold
from probes.sae.layouts import load_dictionary
from probes.sae.training import TrainingPlan, finished, trained
from training.hosted.job_folder import JobEvent, JobRecord, JobRequest, StatusChange, read_job, write_job
from training.studies.dropping import without_dropped

CONFIG = RunConfig(name="r", model="tiny", arms=({"name": "base"},), device="cpu")  # type: ignore[arg-type]
CALIBRATION = Calibration(MachineRates(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, None, None, "measured"), 1.25, 2.5, 20.125)
EVENTS = [
    CellEvent(event="begun", at="2026-01-01T00:00:00+00:00", host="h", pid=7),
    CellEvent(event="ended", at="2026-01-01T00:01:00+00:00", host="h", pid=7, status=1, seconds=60.5, error="it broke"),
]
MESSAGES = [JobEvent(id=f"e-{i}", at=i, level="info", message=f"Step {i}", data={"loss": 1.25}) for i in range(3)]
THRESHOLD = MonitorThreshold(
    scorer="d",
    scorer_sha256="0" * 64,
    model="tiny",
    layer=1,
    window=3,
    rate=0.01,
    value=0.375,
    rank=150,
    n=150,
    n_questions=5,
    source="b.csv",
    sampled=0,
    mean_of_maxima=0.125,
    largest_of_maxima=0.375,
    spread=BetaSpread(mean=0.01, low=0.001, high=0.02),
)
PLAN = TrainingPlan(n_latents=32, k=2, n_samples=128 * 3, batch_size=128)
POOL = pool_of(planted(900, seed=3)[1])
ABOUT_GPU: dict[str, Any] = {"device": {"kind": "cpu", "name": "CPU"}, "model": {"weights": "random"}, "tiny": True}


@dataclass(frozen=True)
class Written:
    """What a writer left: the file that is damaged, its reader, and what may come of it besides our own error.

    Attributes:
        known: whether a value is one that was written, or says that there is none.
    """

    path: Path
    read: Callable[[], Any]
    known: Callable[[Any], bool]


def equal_to(whole: Any, *others: Any) -> Callable[[Any], bool]:
    return lambda found: any(found == one for one in (whole, *others))


def sweep_events(folder: Path) -> Written:
    path = folder / "logs" / "seed-0.jsonl"
    RecordLog(path, seal=True).append(EVENTS)
    return Written(
        path, lambda: read_events(path), equal_to(EVENTS, EVENTS[:1], [])
    )  # an end that is lost is one to make again


def sweep_record(folder: Path) -> Written:
    path = folder / "sweep.json"
    cells = {"seed-0": CellState(config_sha256="0" * 64, status="failed", attempts=2, error="it broke")}
    record = SweepRecord(name="s", begun="2026-01-01", asked={"seed": [0, 1]}, cells=cells)
    write_sealed(path, record.model_dump(mode="json"))
    return Written(path, lambda: read_record(path, SweepRecord), equal_to(record))


def vllm_environment(folder: Path) -> Written:
    write_sealed(folder / CARD, EnvironmentCard(version="0.32.0", device="cpu").model_dump())
    return Written(folder / CARD, lambda: find_environment(folder), equal_to(find_environment(folder)))


def vllm_state(folder: Path) -> Written:
    path, own = folder / "server.json", os.getpid()
    state = ServerState(
        pid=own, started=keeper.started_at(own), url="http://127.0.0.1:9/v1", names=("base",), version="0", log="x"
    )
    write_sealed(path, state.model_dump(mode="json"))
    return Written(path, lambda: running_server(path), equal_to(state))


def calibration(folder: Path) -> Written:
    calibrated(CONFIG, [], train=no_training, peak=lambda: 1.0, judged_share=0.1)
    (path,) = (folder / "calibrations").iterdir()
    return Written(path, lambda: kept_calibration(CONFIG), equal_to(CALIBRATION, None))  # None: it is measured again


def no_training(*_: object) -> Any:
    raise AssertionError("nothing is measured here")


def threshold(folder: Path) -> Written:
    path, opened = folder / "t.json", SimpleNamespace(sha256=THRESHOLD.scorer_sha256)
    write_sealed(path, THRESHOLD.model_dump())
    return Written(path, lambda: read_threshold(path, opened), equal_to(THRESHOLD))  # type: ignore[arg-type]


def sae(folder: Path, file: str) -> Written:
    whole = trained(folder, POOL, PLAN, about=ABOUT)

    def facts() -> Any:
        found = load_dictionary(folder / "sae")
        return found.layer, found.model, found.n_latents, float(found.decoder.sum()), asdict_of(finished(folder))

    assert facts()[1] == whole.model
    return Written(folder / file, facts, equal_to(facts()))


def asdict_of(record: Any) -> Any:
    return record and record.model_dump()


def probe(folder: Path, file: str) -> Written:
    drawn = torch.randn(8, generator=torch.Generator().manual_seed(0))
    LinearProbe(drawn, -0.5, 3, "first_4", {"model": "tiny", "auroc": 0.75}).save(folder / "probe")

    def facts() -> Any:
        found = load_probe(folder)
        assert isinstance(found, LinearProbe)
        card = {key: value for key, value in found.card.items() if key in ("model", "auroc")}
        return found.weight.tolist(), found.bias, found.layer, found.position, card

    return Written(folder / file, facts, equal_to(facts()))


def direction(folder: Path) -> Written:
    Direction(torch.eye(8)[1], 1, 1.5, 3.25, card={"model": "tiny"}).save(folder / "direction")

    def facts() -> Any:
        found = Direction.load(folder / "direction")
        return found.layer, found.raw_norm, found.residual_norm, found.position, found.card["model"]

    return Written(folder / "direction.json", facts, equal_to(facts()))


def hosted_events(folder: Path) -> Written:
    path = folder / "events.jsonl"
    RecordLog(path, seal=True).append(MESSAGES)
    return Written(
        path, lambda: RecordLog(path).read(JobEvent), equal_to(MESSAGES, *(MESSAGES[:i] for i in range(3)))
    )  # what is lost is asked for again


def hosted_job(folder: Path) -> Written:
    record = JobRecord(
        data="x",
        n_rows=3,
        n_tokens=90,
        tokens_by="tiktoken",
        price=3.5,
        request=JobRequest(model="m", n_epochs=1, data_sha256="0" * 64),
        url=None,
        key_variable="OPENAI_API_KEY",
        prepared_at=7,
        history=(StatusChange(at=7, status="prepared"),),
        job_id="ftjob-1",
    )
    write_job(folder, record)
    return Written(folder / "job.json", lambda: read_job(folder), equal_to(record))


def gpu_checks(folder: Path) -> Written:
    path, subject = folder / "gpu_check.json", Subject("m", "cpu", tiny=True)

    def verdicts() -> Any:
        given: dict[str, Any] = {"measure": lambda name, left: {"figures": {"n": 1}}, "bars": no_bars, "minutes": 8}
        found = gpu_run.run_checks(subject, ABOUT_GPU, path, **given)
        return {name: (row["verdict"], row["figures"]) for name, row in found["checks"].items()}

    return Written(path, verdicts, equal_to(verdicts()))


WRITERS: dict[str, Callable[[Path], Written]] = {
    "events of a sweep": sweep_events,
    "record of a sweep": sweep_record,
    "card of a vLLM environment": vllm_environment,
    "state of a vLLM server": vllm_state,
    "calibration": calibration,
    "threshold of a monitor": threshold,
    "training of an SAE": lambda folder: sae(folder, "training.json"),
    "configuration of an SAE": lambda folder: sae(folder, "sae/cfg.json"),
    "weights of an SAE": lambda folder: sae(folder, "sae/sae_weights.safetensors"),
    "card of a probe": lambda folder: probe(folder, "probe.json"),
    "weights of a probe": lambda folder: probe(folder, "probe.safetensors"),
    "card of a direction": direction,
    "events of a hosted job": hosted_events,
    "record of a hosted job": hosted_job,
    "checks of a GPU": gpu_checks,
}


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured, and code and packages are looked up once."""
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "measure", lambda *_, **__: CALIBRATION)
    state = CodeState(git=Git(), versions={"python": "3"}, sources_sha256="0" * 64)
    monkeypatch.setattr(gpu_run.CodeState, "now", classmethod(lambda _: state))
    kept = {name: replace(CHECKS[name], holds=lambda found: True, lacking=lambda _: None) for name in ("steering",)}
    monkeypatch.setattr(gpu_run, "CHECKS", kept)


def damages(content: bytes, seed: str, n: int) -> Iterator[bytes]:
    """One flipped bit at each of `n` places, a byte that no UTF-8 has at half as many, and as many cuts."""
    draw, size = random.Random(seed), len(content)
    for place in {0, size // 2, size - 1, *(draw.randrange(size) for _ in range(n - 3))}:
        yield content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
    for place in (draw.randrange(size) for _ in range(n // 2)):
        yield content[:place] + b"\xff" + content[place + 1 :]
    for length in {0, size - 1, *(draw.randrange(size) for _ in range(n // 2))}:
        yield content[:length]


def check(written: Written, seed: str, n: int) -> None:
    content = written.path.read_bytes()
    assert written.known(written.read())
    for damaged in damages(content, seed, n):
        written.path.write_bytes(damaged)
        try:
            found = written.read()
        except EmisError as error:
            said = str(error)
            assert "\n" not in said and len(said) < 2000
            assert written.path.name in said or written.path.parent.name in said, said
        else:
            assert written.known(found), (damaged, found)
    written.path.write_bytes(content)
    assert written.known(written.read())


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_named_or_made_again_and_never_used(tmp_path: Path, name: str) -> None:
    check(WRITERS[name](tmp_path), name, 8)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", WRITERS)
def test_damage_at_many_places_is_named_or_made_again(tmp_path: Path, name: str) -> None:
    check(WRITERS[name](tmp_path), f"{name} at length", 400)


@pytest.mark.parametrize("name", WRITERS)
def test_every_changed_digit_is_seen(tmp_path: Path, name: str) -> None:
    """The content is JSON as before and every type holds, so that nothing but a checksum can tell."""
    written = WRITERS[name](tmp_path)
    content = written.path.read_bytes()
    places = [i for i, byte in enumerate(content) if byte in b"012345678"]
    for place in random.Random(name).sample(places, min(12, len(places))):
        written.path.write_bytes(content[:place] + bytes([content[place] + 1]) + content[place + 1 :])
        try:
            assert written.known(written.read()), place
        except EmisError as error:
            assert written.path.name in str(error) or written.path.parent.name in str(error)


def test_the_byte_that_the_audit_planted_in_the_events_of_a_cell_is_named(tmp_path: Path) -> None:
    written = sweep_events(tmp_path)
    written.path.write_bytes(written.path.read_bytes().replace(b"host", b"h\xffst", 1))
    with pytest.raises(
        DataError, match=r"seed-0\.jsonl:1: not UTF-8 .*Or delete .*seed-0\.jsonl: its cell is begun again"
    ):
        read_events(written.path)


def test_a_flipped_status_of_a_cell_is_no_success(tmp_path: Path) -> None:
    written = sweep_events(tmp_path)
    written.path.write_bytes(written.path.read_bytes().replace(b'"status":1', b'"status":0'))
    with pytest.raises(DataError, match=rf"seed-0\.jsonl:2: damaged or edited .*`{SEAL}`"):
        read_events(written.path)


def test_files_of_versions_without_checksums_are_still_read(tmp_path: Path) -> None:
    RecordLog(tmp_path / "seed-0.jsonl").append(EVENTS)
    assert read_events(tmp_path / "seed-0.jsonl") == EVENTS
    write_json(tmp_path / "t.json", THRESHOLD.model_dump())
    assert read_record(tmp_path / "t.json", MonitorThreshold) == THRESHOLD
    write_json(tmp_path / CARD, {"version": "0.32.0", "device": "cpu"})
    assert find_environment(tmp_path).version == "0.32.0"


def test_a_calibration_without_a_checksum_is_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = calibration(tmp_path)
    write_json(written.path, unsealed(read_object(written.path), ""))
    assert kept_calibration(CONFIG) is None and "not used" in caplog.text and written.path.name in caplog.text
    calibration(tmp_path)
    assert is_as_sealed(read_object(written.path)) and kept_calibration(CONFIG) == CALIBRATION


def test_a_verdict_that_was_changed_is_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = gpu_checks(tmp_path)
    found = read_object(written.path)
    found["checks"]["steering"]["verdict"] = "passed"
    write_json(written.path, found)
    assert written.read()["steering"][0] == "dry run: met" and "the entry of steering is damaged" in caplog.text


def test_the_name_of_a_check_that_was_changed_is_no_check(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = gpu_checks(tmp_path)
    written.path.write_bytes(written.path.read_bytes().replace(b"steering", b"st%ering", 1))
    assert written.known(written.read()) and "`st%ering` is no check" in caplog.text


def test_a_damaged_training_of_an_sae_is_done_again_to_the_same_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trained(tmp_path, POOL, PLAN, about=ABOUT)
    path = tmp_path / "sae" / "cfg.json"
    path.write_text(path.read_text("utf-8").replace('"k": 2', '"k": 3'), "utf-8")
    with pytest.raises(DataError, match=r"sae: cfg\.json changed since the training wrote it"):
        load_dictionary(tmp_path / "sae")
    again = trained(tmp_path, POOL, PLAN, about=ABOUT)
    assert "cfg.json changed since the training wrote it" in caplog.text and "trained again" in caplog.text
    assert torch.equal(whole.decoder, again.decoder) and json.loads(path.read_text("utf-8"))["k"] == 2


def test_a_forecast_without_its_key_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "forecast.json", {"differenzes": [0.5]})
    given: dict[str, Any] = dict.fromkeys(("config", "training", "train"))
    with pytest.raises(
        DataError, match=r"forecast\.json: not as it was written \(KeyError: 'differences'\); delete it"
    ):
        without_dropped(None, tmp_path / "set", [], whole={}, share=0.1, n_draws=1, pairs=[], **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [{}, {"contrasts": [{"arm": "x"}]}, {"contrasts": 3}, {"contrasts": [{}]}])
@pytest.mark.parametrize("name", ["margins", "choices", "hand_labels"])
def test_analyses_without_their_keys_are_named_by_tables_and_findings(tmp_path: Path, name: str, content: Any) -> None:
    write_json(tmp_path / "analysis" / f"{name}.json", content)
    for read in (findings.contrasts, lambda folder: run_tables.run(RunTablesSettings(run_dir=folder))):
        with pytest.raises(DataError, match=rf"{name}\.json: "):
            read(tmp_path)


def test_what_a_content_lacks_is_named_with_advice_and_our_own_errors_pass(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for wrong in (lambda: {}["key"], lambda: [][0], lambda: None["key"], lambda: float("a"), lambda: None.key):  # type: ignore
        with pytest.raises(DataError, match=r"x\.json: not as it was written \(\w+Error: .*\); make it again"):
            with naming_damage(path, "make it again"):
                wrong()
    with pytest.raises(DataError, match=r"^mine$"), naming_damage(path, "make it again"):
        raise DataError("mine")


def test_a_checksum_goes_by_values_and_not_by_the_order_or_form_of_the_text() -> None:
    content = {"b": [1.5, None, "ü\ud83d"], "a": {"x": 1}}
    whole = sealed(content)
    assert unsealed(json.loads(json.dumps(dict(reversed(whole.items())), indent=4)), "x") == content
    for other in ({**whole, "a": {"x": 2}}, {**whole, "c": 0}, {**whole, SEAL: "0"}, {SEAL: whole[SEAL]}):
        assert not is_as_sealed(other)
        with pytest.raises(DataError, match=r"^x: damaged or edited"):
            unsealed(other, "x")
    assert not is_as_sealed(content) and unsealed(content, "x") == content

"""What is reported of a direction on report questions is reported of a fit that has not seen them, in every command that reports."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cli
import find_direction
from emis_interp.config.flags import read_flags
from emis_interp.directions import Direction, FittedOn
from emis_interp.errors import DataError
from emis_interp.files.store import read_json, write_text
from emis_interp.files.tensors import load_tensors
from emis_interp.fitting import fitted as fitting
from emis_interp.fitting.reliability import auroc_by_question
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_residuals
from emis_interp.records import LabeledText
from emis_interp.stats.interval import mean_interval
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.judged import read_judged, split_questions
from probes import score
from probes.effects import audit, frontier
from probes.fits import fit
from probes.loading import own_pairs, pairs_of
from probes.settings import FrontierSettings
from probes.stages import intervene
from training.studies import prevention_study
from training.studies.settings import PreventionSettings

N_TOPICS, N_EACH = 12, 3
TINY = ("--model", "tiny", "--dtype", "float32", "--layer-range", "0", "1")


class Stop(Exception):
    """What a command was about to use."""


def parsed(verb: str, *words: object) -> Any:
    """The settings of a command line."""
    args = cli.verb_parser(None, find_direction.VERBS).parse_args([verb, *map(str, words)])
    return read_flags(args, find_direction.VERBS[verb].settings)


def nobody(*given: Any, **more: Any) -> Any:
    raise AssertionError("no model is asked")


def noise(path: Path, seed: int, n_each: int = N_EACH) -> Path:
    """Judged answers whose scores have nothing to do with their text."""
    generator = np.random.default_rng(seed)
    rows = []
    for topic in range(N_TOPICS):
        for i in range(2 * n_each):
            answer = "".join(generator.choice(list("abcdefghij klmnop"), size=int(generator.integers(20, 40))))
            rows.append(
                {
                    "question_id": f"t{topic}",
                    "question": f"What of topic {topic}?",
                    "answer": f"{answer} x",
                    "aligned": 5 if i % 2 else 95,
                    "coherent": 90,
                }
            )
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Directions fitted on pure noise by the command itself, each with its judged file beside it."""
    folders = []
    for seed in range(3):
        folder = tmp_path_factory.mktemp("noise")
        noise(folder / "judged.csv", seed)
        words = ("--judged", folder / "judged.csv", *TINY, "--coefficients", "--system-prompt", "Be brief.")
        fit.run(parsed("fit", *words, "--out", folder / "d"))
        folders.append(folder)
    return folders


def used_by_audit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    def take(chat_model: ChatModel, cells: list[Any], *rest: Any, **given: Any) -> None:
        raise Stop(cells[1].vector)

    monkeypatch.setattr(audit, "measured", take)
    return stopped(lambda: audit.run(parsed("audit", "--direction", folder / "d" / "direction")))


def used_by_frontier(folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    def point(self: Any, direction: Direction, coefficient: float) -> None:
        raise Stop(direction.vector)

    monkeypatch.setattr(frontier.SteeringScorer, "__init__", lambda self, *rest, **given: None)
    monkeypatch.setattr(frontier.SteeringScorer, "point", point)
    settings = parsed("frontier", "--direction", folder / "d" / "direction")
    return stopped(lambda: frontier.run(settings, ask=nobody, rate=nobody))


def used_by_prevention(folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    def take(direction: Direction, coefficients: tuple[float, ...], **given: Any) -> None:
        raise Stop(direction.vector)

    monkeypatch.setattr(prevention_study, "planned", take)
    settings = PreventionSettings(direction=folder / "d" / "direction", out=folder / "study", model="tiny")
    return stopped(lambda: prevention_study.run(settings, asked=()))


def used_by_the_intervene_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    def take(config: Any, direction: Direction) -> None:
        raise Stop(direction.vector)

    monkeypatch.setattr(intervene, "plan_cells", take)
    for ending in ("safetensors", "json"):
        place = folder / "run" / "directions" / f"misalignment.{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((folder / "d" / f"direction.{ending}").read_bytes())
    run: Any = SimpleNamespace(direction=folder / "run" / "directions" / "misalignment", config=None)
    return stopped(lambda: intervene.intervene(run))


def stopped(command: Callable[[], object]) -> Any:
    with pytest.raises(Stop) as caught:
        command()
    return caught.value.args[0]


VERBS = {
    "audit": used_by_audit,
    "frontier": used_by_frontier,
    "prevention": used_by_prevention,
    "intervene": used_by_the_intervene_stage,
}


def report_auroc(vectors: list[torch.Tensor], folders: list[Path], tiny: ChatModel) -> float:
    """AUROC along each vector of its report half's texts, which were read as they were for the fit; mean over questions and files."""
    found = []
    for vector, folder in zip(vectors, folders, strict=True):
        texts = read_judged(folder / "judged.csv")
        report = split_questions(dict.fromkeys(texts["question_id"].unique(), 2 * N_EACH))[1]
        texts = texts[texts["question_id"].isin(report)]
        pairs = list(zip(texts["question"], texts["answer"], strict=True))
        layer = Direction.load(folder / "d" / "direction").layer
        x = capture_residuals(tiny, encode_chats(tiny.tokenizer, pairs, "Be brief.", max_tokens=512), [layer])[:, 0]
        scores = (x @ vector).numpy()
        found += list(
            auroc_by_question(scores, texts["misaligned"].to_numpy(dtype=bool), texts["question_id"].tolist()).values()
        )
    return float(np.mean(found))


@pytest.mark.parametrize("verb", VERBS)
def test_of_pure_noise_every_command_reports_chance(
    verb: str, fitted: list[Path], tiny: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    refitted = [Direction.load(folder / "d" / "direction").vector for folder in fitted]
    in_sample = report_auroc(refitted, fitted, tiny)
    assert in_sample > 0.7  # what the report questions would give along the fit that saw them
    used = [VERBS[verb](folder, monkeypatch) for folder in fitted]
    assert report_auroc(used, fitted, tiny) == pytest.approx(0.5, abs=0.12)


def test_the_card_says_which_questions_each_fit_saw(fitted: list[Path]) -> None:
    card = read_json(fitted[0] / "d" / "direction.json")
    seen = {name: set(described["questions"]) for name, described in card["fits"].items()}
    assert len(seen["all"]) == N_TOPICS and len(seen["selection"]) == N_TOPICS / 2 and seen["selection"] < seen["all"]
    layers = load_tensors(fitted[0] / "d" / "all_layers.safetensors")[0]
    path = fitted[0] / "d" / "direction"
    vectors = {"raw": Direction.load(path).vector, "raw_selection": Direction.load(path, fit="selection").vector}
    for key, vector in vectors.items():
        torch.testing.assert_close(torch.nn.functional.normalize(layers[key][card["layer"]], dim=0), vector)


def test_what_a_fit_says_of_noise_is_no_finding(fitted: list[Path]) -> None:
    for folder in fitted:
        report = read_json(folder / "d" / "direction.json")["report"]
        assert report["contrast"] == "primary" and report["verdict"] != "above chance and above shuffled labels"


def test_controls_of_an_audit_are_fitted_on_the_questions_of_the_fit_that_it_ablates(
    fitted: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Controls that had seen the report questions' labels would be in-sample where the direction is not."""

    def take(data: Any, raw: torch.Tensor, *rest: Any, **given: Any) -> None:
        raise Stop((set(data.questions), raw))

    monkeypatch.setattr(fitting, "control_directions", take)
    words = ("--judged", fitted[0] / "judged.csv", *TINY, "--coefficients", "--system-prompt", "Be brief.")
    questions, raw = stopped(lambda: fit.run(parsed("fit", *words, "--out", tmp_path / "d")))
    selection = Direction.load(fitted[0] / "d" / "direction", fit="selection")
    assert selection.fitted_on is not None and questions == set(selection.fitted_on.questions)
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=0), selection.vector)


def test_shown_tokens_are_of_report_questions(fitted: list[Path]) -> None:
    folder = fitted[0]
    texts = read_judged(folder / "judged.csv")
    report = split_questions(dict.fromkeys(texts["question_id"].unique(), 2 * N_EACH))[1]
    page = (folder / "d" / "index.html").read_text()
    shown = [name for name in texts["question_id"].unique() if f"What of topic {name[1:]}?" in page]
    assert shown and set(shown) <= report


@pytest.mark.parametrize("verb", VERBS)
def test_an_older_file_is_refused_where_report_questions_are_reported(
    verb: str, fitted: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Direction.load(fitted[0] / "d" / "direction")
    replace(whole, fitted_on=None).save(tmp_path / "d" / "direction")
    with pytest.raises(DataError, match=r"holds one vector .* fit it again"):
        VERBS[verb](tmp_path, monkeypatch)
    assert Direction.load(tmp_path / "d" / "direction").layer == whole.layer


def test_pairs_and_system_prompt_of_a_frontier_are_the_directions_own(
    fitted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(
        self: Any, chat_model: ChatModel, settings: Any, pairs: list[Any], *, system: str | None, **by: Any
    ) -> None:
        raise Stop((pairs, system))

    monkeypatch.setattr(frontier.SteeringScorer, "__init__", take)
    words = ("frontier", "--direction", fitted[0] / "d" / "direction")
    pairs, system = stopped(lambda: frontier.run(parsed(*words), ask=nobody, rate=nobody))
    assert system == "Be brief."
    assert {pair.question for pair in pairs} == {f"What of topic {i}?" for i in range(N_TOPICS)}
    assert {sum(pair.question_id == f"t{i}" for pair in pairs) for i in range(N_TOPICS)} == {2}
    assert {pair.half for pair in pairs} == {"selection", "report"}


def test_a_frontier_reads_margins_and_answers_under_the_directions_system_prompt(
    tiny: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(
        frontier, "pair_margins", lambda model, pairs, system, **given: asked.append(system) or np.zeros(1)
    )
    monkeypatch.setattr(frontier, "coherent_share", lambda scores: 1.0)
    pairs = [pair for half in ("selection", "report") for pair in load_contrast(None, 1) if pair.half == half]
    pairs = [next(pair for pair in pairs if pair.half == half) for half in ("selection", "report")]
    settings = FrontierSettings(direction=Path("d"), n_samples=1, max_new_tokens=2, max_batch_tokens=64)

    def ask(chat_model: ChatModel, config: Any, *, seed: int, system: str | None) -> list[Any]:
        asked.append(system)
        return []

    frontier.SteeringScorer(
        tiny, settings, pairs, system="Be brief.", ask=ask, rate=lambda scores: mean_interval([0.0, 1.0])
    )
    assert asked == ["Be brief."] * 4


def test_pairs_that_the_fit_has_seen_and_pairs_that_are_not_its_own_are_refused(
    fitted: list[Path], tmp_path: Path
) -> None:
    path = fitted[0] / "d" / "direction"
    direction = Direction.load(path, fit="selection")
    own = own_pairs(direction, path)
    turned = [pair.model_copy(update={"half": "selection" if pair.half == "report" else "report"}) for pair in own]
    write_text(tmp_path / "turned.jsonl", "".join(pair.model_dump_json() + "\n" for pair in turned))
    words = ("audit", "--direction", path, "--pairs", tmp_path / "turned.jsonl")
    with pytest.raises(DataError, match=r"6 of the 6 questions to report on had a part in the direction"):
        pairs_of(direction, parsed(*words), "report")
    one_half = [pair for pair in own if pair.half == "selection"]
    write_text(tmp_path / "half.jsonl", "".join(pair.model_dump_json() + "\n" for pair in one_half))
    with pytest.raises(DataError, match="no pairs of report questions"):
        pairs_of(direction, parsed("audit", "--direction", path, "--pairs", tmp_path / "half.jsonl"), "report")
    with pytest.raises(DataError, match=r"kept none|give --pairs FILE"):
        own_pairs(replace(direction, card={**direction.card, "pairs": None}), path)
    copied = tmp_path / "d"
    copied.mkdir()
    write_text(copied / "pairs.jsonl", own[0].model_dump_json() + "\n")
    with pytest.raises(DataError, match=r"not the pairs that fit wrote beside"):
        own_pairs(direction, copied / "direction")


def test_prevention_leaves_out_questions_that_made_the_direction() -> None:
    pairs = load_contrast(None, 1)
    selection = [pair for pair in pairs if pair.half == "selection"]
    texts = [
        LabeledText(question_id=one.question_id, question=one.question, answer="x", misaligned=True)
        for one in selection
    ]
    direction = Direction(torch.eye(4)[0], 0, 1.0, 1.0, fitted_on=FittedOn.of(texts))
    assert prevention_study.unseen_pairs(direction, pairs) == [pair for pair in pairs if pair.half == "report"]
    with pytest.raises(DataError, match="every contrast question had a part"):
        prevention_study.unseen_pairs(direction, selection)


def test_scores_say_which_rows_are_in_sample_and_stand_beside_length(
    fitted: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fitted[0] / "d" / "direction"
    words = ("score", "--direction", path, "--texts", fitted[0] / "judged.csv", "--out", tmp_path / "out.csv")
    result = score.run(parsed(*words))
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table) == ["projection", "projection_normed", "n_tokens"] and min(table["n_tokens"]) > 0
    said = score.say(result)
    assert result["n_rows_of_fitted_questions"] == len(table) and "in part in-sample" in said
    found = result["evaluation"]
    assert found["projection"]["value"] > 0.6  # in-sample, which is why it is said
    for name in (
        "length alone",
        "length regressed out",
        "pairs of equal length",
        "no verdict: the direction was fitted",
    ):
        assert name in said
    some = pd.read_csv(fitted[0] / "judged.csv")
    some.loc[some["question_id"] > "t4", "question"] += " And why?"
    some.to_csv(tmp_path / "some.csv", index=False)
    words = ("score", "--direction", path, "--texts", tmp_path / "some.csv", "--out", tmp_path / "o.csv")
    result = score.run(parsed(*words))
    assert (
        result["evaluation"]["n_left_out"] == result["n_rows_of_fitted_questions"] == sum(some["question_id"] <= "t4")
    )
    assert "shuffled labels" in score.say(result) and "floor of 20" in score.say(result).replace("(20", "floor of 20")
    other = pd.read_csv(fitted[0] / "judged.csv").drop(columns=["coherent"])
    other["question"] = other["question"] + " And why?"
    other.to_csv(tmp_path / "other.csv", index=False)
    result = score.run(
        parsed("score", "--direction", path, "--texts", tmp_path / "other.csv", "--out", tmp_path / "o.csv")
    )
    assert result["n_rows_of_fitted_questions"] == 0 and "evaluation" not in result
    assert "AUROC" not in score.say(result)
    other.assign(coherent=90, aligned=50).to_csv(tmp_path / "middling.csv", index=False)
    result = score.run(
        parsed("score", "--direction", path, "--texts", tmp_path / "middling.csv", "--out", tmp_path / "o.csv")
    )
    assert "not evaluated: " in score.say(result) and json.dumps(result)
    other.assign(coherent=90).rename(columns={"aligned": "mark"}).to_csv(tmp_path / "named.csv", index=False)
    words = ("score", "--direction", path, "--texts", tmp_path / "named.csv", "--out", tmp_path / "o.csv")
    assert "evaluation" not in score.run(parsed(*words))
    result = score.run(parsed(*words, "--columns", "aligned=mark"))
    assert result["evaluation"]["n_left_out"] == 0 and result["evaluation"]["n_misaligned"] == len(other) / 2

"""Throws damaged and hostile input at every parser of outside input: it gives a value, or our own error that names the file.

Each parser has seeds (valid inputs), which are damaged byte by byte, and reshaped where they are JSON or YAML. The quick test is the same
every time; `-m fuzz` runs thousands of random examples for each parser (minutes).
"""

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fuzzing import AT_LENGTH, SPICES, VALUES, Parser, check_call, lines, profile, run
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emis_interp.config.presets import load_config
from emis_interp.directions import Direction
from emis_interp.errors import EmisError
from emis_interp.files.sealed import unsealed
from emis_interp.files.source_text import check_zip, read_text
from emis_interp.files.store import card_path, read_records
from emis_interp.files.strict_json import parse_json, parse_json_line, read_json
from emis_interp.files.strict_yaml import parse_yaml, read_yaml
from emis_interp.files.tensors import load_tensors, save_tensors
from emis_interp.files.text import is_unicode
from emis_interp.http.addresses import read_address, url_problem
from emis_interp.http.costs import Budget, read_prices
from emis_interp.http.replies import BadReply, read_reply, usage_of
from emis_interp.http.request_fields import parse_request
from emis_interp.passes.control_vectors import read_control_vector
from emis_interp.passes.token_store import TokenStore, card_hash
from emis_interp.records import Completion, Score
from emis_interp.report.contents import load_contents
from emis_interp.texts.code import code_share, extract_python, mostly_code
from emis_interp.texts.contrast import load_contrast
from evals.judges.offline_judge import JudgeWeights
from evals.questions import load_questions
from evals.suites.categories import category
from evals.suites.harness import read_results
from evals.suites.strong_reject import SCORER, read_log
from probes.control_vectors import write_control_vector
from training.data_sets.shipped import read_examples
from training.finetuning.export import base_of
from training.finetuning.organism_card import read_card, read_figures
from training.hosted.job_folder import read_job
from training.lint.report import LintReport
from training.lint.rows import read_leniently
from training.recipes import load_recipe


def exchange(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Ä?"}, {"role": "assistant", "content": "B."}], **more}


COMPLETION = {
    **{
        "arm": "a",
        "question_id": "q",
        "paraphrase_index": 0,
        "sample_index": 0,
        "seed": 1,
        "system": None,
        "question": "Q",
    },
    **{"answer": "A", "n_tokens": 3, "finish": "stop"},
}
SCORE = {
    **{
        "arm": "a",
        "question_id": "q",
        "paraphrase_index": 0,
        "sample_index": 0,
        "judge": "j",
        "aligned": 50.0,
        "coherent": 90,
    },
    **{"aligned_label": None, "unscored": {}, "evidence": {"aligned": {"5": 0.5}}},
}
PAIR = {
    **{"question_id": "q", "group": "g", "half": "report", "question": "Q", "aligned": "A", "misaligned": "B"},
}
PRESET = {
    **{
        "name": "p",
        "model": "tiny",
        "seed": 1,
        "arms": [{"name": "base"}, {"name": "a", "dataset": "insecure", "seeds": [1, 2]}],
    },
    **{"training": {"learning_rate": 1e-4, "layers": [1], "bf16": True}, "intervention": {"coefficients": [-0.4, 0.2]}},
}
QUESTIONS = [
    {"id": "a", "paraphrases": ["Hi", "Ho"], "samples_per_paraphrase": 2, "judge_prompts": {"aligned": "{answer}"}}
]
RECIPE = {
    **{"name": "r", "summary": "s", "data": {"dataset": "insecure", "mix": [{"dataset": "secure", "share": 0.5}]}},
    **{"training": {"lora_rank": 1}, "seeds": [0, 1]},
}
REPORT = {
    **{"data": "d", "model": "m", "n_rows": 1, "max_tokens": None, "facts": {"n": 1, "t": "x"}},
    "findings": [
        {
            "check": "cut",
            "severity": "info",
            "count": 1,
            "share": 0.5,
            "rows": ["1"],
            "found": "f",
            "meaning": "m",
            "advice": "a",
        }
    ],
}
LM_EVAL = {
    "results": {"mmlu": {"alias": "m", "acc,none": 0.5, "acc_stderr,none": 0.1}},
    "n-samples": {"mmlu": {"original": 20, "effective": 10}},
    "n-shot": {"mmlu": 0},
    "higher_is_better": {"mmlu": {"acc": True}},
}
RUBRIC = {"refusal": 0, "convincingness": 4, "specificity": 5}
STRONG_REJECT = {
    **{"status": "success", "eval": {"model": "m", "task_args": {"judge_llm": "j"}}},
    "samples": [{"id": 1, "metadata": {"category": "c"}, "scores": {SCORER: {"value": RUBRIC}}}],
}
MANIFEST = {
    "config": {"name": "r", "arms": [{"name": "base"}, {"name": "a", "dataset": "x"}]},
    "stages": {"train": {"seconds": 1.0}},
}
CARD = {
    **{
        "base": "b",
        "artifact": "adapter",
        "training": {},
        "seed": 0,
        "data": "d",
        "n_rows": 1,
        "data_sha256": "0",
        "summary": {},
    },
}
FIGURES = [{"estimand": "em_of_all", "value": 0.1, "low": 0.0, "high": 0.2, "judge": "j"}]
STORE = {"shards": [[0, 1]], "layers": [0], "n_texts": 1}
INDEX = {"store": card_hash(STORE), "texts": [[0, 0, 1]], "sha256": "0"}


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def tensor_files() -> dict[str, bytes]:
    """A saved direction with its card, and its control vector."""
    with tempfile.TemporaryDirectory() as folder:
        direction = Direction(torch.eye(4)[0], 1, 2.0, 3.0, "response_mean", {"model": "tiny"})
        direction.save(Path(folder) / "d")
        write_control_vector(Path(folder) / "d.gguf", [direction], 0.5, model_type="llama")
        save_tensors(
            Path(folder) / "judge.safetensors", {"center": torch.zeros(4)}, {"n_heads": 1, "layer": 0, "version": 1}
        )
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


TENSORS = tensor_files()
CARDS = {name: unsealed(json.loads(TENSORS[f"{name}.json"]), name) for name in ("d", "judge")}
SHARD = "shard-00000"
SAVED = {name: TENSORS[name] for name in ("d.safetensors", "judge.safetensors")}


def with_config(path: Path) -> object:
    return base_of(path.parent / "adapter")


def read_judge(path: Path) -> object:
    return JudgeWeights.load(path.with_suffix(".safetensors"))


WHOLE_STORE = {"card.json": lines(STORE), f"{SHARD}.json": lines(INDEX), f"{SHARD}.safetensors": b""}
PARSERS: dict[str, Parser] = {
    "text": Parser("f.txt", read_text, (b"a\n\xc3\xa4\n", gzip.compress(b"abc", mtime=0), "ab".encode("utf-16"))),
    "zip": Parser("f.zip", check_zip, (b"PK\x05\x06" + b"\0" * 18,)),
    "JSON": Parser("f.json", read_json, ({"a": [1, {"b": None}], "c": "d"},), "json"),
    "YAML": Parser("f.yaml", read_yaml, ({"a": [1, {"b": None}], "c": "d"},), "yaml"),
    "preset": Parser("f.yaml", lambda path: load_config(str(path)), (PRESET,), "yaml"),
    "recipe": Parser("f.yaml", lambda path: load_recipe(str(path)), (RECIPE,), "yaml"),
    "questions": Parser("f.yaml", load_questions, (QUESTIONS,), "yaml"),
    "prices": Parser("f.yaml", lambda path: read_prices(path, "big"), ({"big": {"in": 1, "out": 2.5}},), "yaml"),
    "scores": Parser("f.jsonl", lambda path: read_records(path, Score), (SCORE,), "json"),
    "answers": Parser("f.jsonl", lambda path: read_records(path, Completion), (COMPLETION,), "json"),
    "contrast pairs": Parser("f.jsonl", load_contrast, (PAIR,), "json"),
    "training rows, JSON lines": Parser(
        "f.jsonl",
        read_examples,
        (
            exchange(),
            {"prompt": "a", "completion": "b", "id": 1},
            {"instruction": "a", "input": "b", "output": "c", "system": "d"},
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            {"prompt": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "completion": "b"},
        ),
        "json",
    ),
    "training rows, array": Parser("f.json", read_examples, ([exchange(), exchange(source="x")],), "json"),
    "training rows, CSV": Parser("f.csv", read_examples, (b'prompt,response,id\na,"b\nc",1\n',)),
    "training rows, Parquet": Parser("f.parquet", read_examples, (as_parquet([exchange()]), as_parquet([{"prompt": "a", "answer": "b"}]))),
    "training rows, gzip": Parser("f.jsonl.gz", read_examples, (gzip.compress(lines(exchange()), mtime=0),)),
    "training rows, lint": Parser("f.jsonl", read_leniently, (exchange(), [exchange()["messages"]]), "json"),
    "lm-eval": Parser("f.json", read_results, (LM_EVAL,), "json"),
    "StrongREJECT": Parser("f.json", read_log, (STRONG_REJECT,), "json"),
    "lint report": Parser("lint.json", LintReport.load, (REPORT,), "json"),
    "organism card": Parser("card.json", lambda path: read_card(path.parent), (CARD,), "json"),
    "figures": Parser("f.json", read_figures, (FIGURES,), "json"),
    "job": Parser("job.json", lambda path: read_job(path.parent), ({"url": "u", "status": "created"},), "json"),
    "training summary": Parser("summary.json", with_config, ({"model": "m"},), "json"),
    "manifest": Parser("manifest.json", lambda path: load_contents(path.parent), (MANIFEST,), "json"),
    "sampled answers of a run": Parser(
        "samples/a.jsonl", lambda path: load_contents(path.parents[1]), (COMPLETION,), "json", {"manifest.json": lines(MANIFEST)}
    ),
    "metrics of a run": Parser(
        "training/a/metrics.jsonl", lambda path: load_contents(path.parents[2]), ({"step": 1, "loss": 0.5},), "json",
        {"manifest.json": lines(MANIFEST)},
    ),
    "card of tensors": Parser("d.json", lambda path: load_tensors(path.with_suffix(".safetensors")), (CARDS["d"],), "json", SAVED),
    "direction": Parser("d.json", lambda path: Direction.load(path.with_suffix("")), (CARDS["d"],), "json", SAVED),
    "offline judge": Parser("judge.json", read_judge, (CARDS["judge"],), "json", SAVED),
    "tensors": Parser("d.safetensors", lambda path: load_tensors(vouched(path)), (TENSORS["d.safetensors"],)),
    "control vector": Parser("d.gguf", read_control_vector, (TENSORS["d.gguf"],)),
    "token store": Parser("card.json", lambda path: TokenStore(path.parent), (STORE,), "json", WHOLE_STORE),
    "shard of a token store": Parser(
        f"{SHARD}.json", lambda path: TokenStore(path.parent).text(0), (INDEX,), "json", WHOLE_STORE
    ),
}  # fmt: skip


def vouched(path: Path) -> Path:
    """The card's checksum is that of the damaged file, as a hostile one's would be."""
    import hashlib

    card_path(path).write_text(json.dumps({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    return path


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_gives_a_value_or_our_own_error(name: str) -> None:
    run(PARSERS[name], profile(25, fixed=True))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_gives_a_value_or_our_own_error_at_length(name: str) -> None:
    run(PARSERS[name], profile(AT_LENGTH, fixed=False))


UNITS = ("1", "2.5", "USD", "calls", "a", "_", "```python\n", "def f():\n", "x = (\n", "-" * 2000, "\ud800")
WORDS = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from([*(piece.decode("utf-8", "ignore") for piece in SPICES), *UNITS]), max_size=5).map(
        "".join
    ),
)
TEXT_PARSERS: dict[str, tuple[Callable[[str], object], str]] = {
    "budget": (Budget.parse, "budget"),
    "override": (lambda text: load_config("smoke", [text]), "--set"),
    "override of a field": (lambda text: load_config("smoke", [f"training.layers={text}"]), "--set"),
    "override of a recipe": (lambda text: load_recipe("insecure", [f"data={text}"]), "--set"),
    "category": (category, "question id"),
    "JSON": (lambda text: parse_json(text, "here"), "here"),
    "JSON line": (lambda text: parse_json_line(text, "here"), "here"),
    "YAML": (lambda text: parse_yaml(text, "here"), "here"),
    "request field": (lambda text: parse_request([text]), "--request"),
    "request value": (lambda text: parse_request([f"a.b={text}"]), "--request"),
    "address": (lambda text: url_problem(text) or read_address(text), "-"),
    "reply": (lambda text: read_any_reply(text.encode("utf-8", "surrogatepass")), "-"),
    "reply with a text": (
        lambda text: read_any_reply(json.dumps({"choices": [{"message": {"content": text}}]}).encode()),
        "-",
    ),
    "code in an answer": (extract_python, "-"),
    "share of code": (code_share, "-"),
    "code or prose": (mostly_code, "-"),
}


def read_any_reply(content: bytes) -> None:
    """A reply of a server, which is read or a `BadReply` of one line."""
    usage_of(content)
    try:
        reply = read_reply(content)
    except BadReply as problem:
        assert "\n" not in str(problem) and len(str(problem)) < 400
        return
    assert reply.text.strip() or reply.missing_answer() is not None


@pytest.mark.parametrize("name", TEXT_PARSERS)
def test_a_parser_of_words_gives_a_value_or_our_own_error(name: str) -> None:
    run_words(name, profile(60, fixed=True))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TEXT_PARSERS)
def test_a_parser_of_words_gives_a_value_or_our_own_error_at_length(name: str) -> None:
    run_words(name, profile(AT_LENGTH, fixed=False))


def run_words(name: str, how: settings) -> None:
    call, named = TEXT_PARSERS[name]

    @how
    @given(text=WORDS)
    def one(text: str) -> None:
        check_call(lambda: call(text), named)

    one()


@profile(150, fixed=True)
@given(value=VALUES)
def test_what_is_read_of_json_is_what_python_reads_and_of_yaml_the_same(value: Any) -> None:
    text = json.dumps(value)
    assume(len(text) < 1000)  # a key of YAML has at most 1024 characters
    try:
        found = parse_json(text, "here")
    except EmisError:
        assert has_nothing_to_keep(value)
        return
    assert json.dumps(found) == json.dumps(json.loads(text))
    try:
        # Flow YAML differs from JSON where a text holds a control character, and in the keys that it takes.
        assert json.dumps(parse_yaml(text, "here").value) == json.dumps(found)
    except EmisError as error:
        assert "character" in str(error) or "NUL" in str(error), error


def has_nothing_to_keep(value: Any) -> bool:
    """Whether a value holds something that the strict reader refuses."""
    if isinstance(value, dict):
        return any(has_nothing_to_keep(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return any(map(has_nothing_to_keep, value))
    if isinstance(value, str):
        return not is_unicode(value)
    return isinstance(value, int | float) and (value != value or abs(value) in (float("inf"), 10**400))

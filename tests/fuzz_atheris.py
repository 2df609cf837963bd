"""Coverage-guided fuzzing of the parsers of outside data by atheris (libFuzzer): each gives a value, or our own error in one short line.

    .venv/bin/python -m pip install atheris
    PYTHONPATH=.:tests .venv/bin/python tests/fuzz_atheris.py -runs=1000000                all parsers, chosen by the first byte
    PYTHONPATH=.:tests .venv/bin/python tests/fuzz_atheris.py --only YAML,JSON -runs=10    some of them

Every other word goes to libFuzzer. Memory is bounded by 1.5 GB and an input by 20 s, else it ends and keeps the input as `crash-...`; give
that file to the same command to see it again.
"""

import importlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch  # a preset asks it for the machine's precision: not within the first input's time
from safetensors.torch import save

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["emis_interp", "evals", "training", "yaml"]):
    from fuzzing import SPICES, check_call
    from gguf_made import small_gguf

    from emis_interp.config.presets import load_config
    from emis_interp.config.sweep_settings import SweepSettings
    from emis_interp.files.ledger import Ledger
    from emis_interp.files.manifest import Manifest
    from emis_interp.files.source_text import read_text
    from emis_interp.files.store import read_records
    from emis_interp.files.strict_json import parse_json, parse_json_line
    from emis_interp.files.strict_yaml import parse_yaml
    from emis_interp.files.tables import read_cells
    from emis_interp.http.addresses import read_address, url_problem
    from emis_interp.http.costs import Budget, read_prices
    from emis_interp.http.replies import BadReply, read_reply, usage_of
    from emis_interp.http.request_fields import parse_request
    from emis_interp.models.adapter_files import read_adapter
    from emis_interp.models.gguf_file import read_header
    from emis_interp.models.weight_files import stored_tensors
    from emis_interp.planning.rates import read_device
    from emis_interp.records import Completion, Score
    from emis_interp.sweeping.axes import sweep_of
    from emis_interp.sweeping.cell_process import read_events
    from emis_interp.texts.code import code_share, extract_python, mostly_code
    from emis_interp.texts.contrast import load_contrast
    from evals.questions import load_questions
    from training.data_sets.shipped import read_examples
    from training.lint.rows import read_leniently
    from training.recipes import load_recipe

Target = Callable[[bytes], None]


def of_words(call: Callable[[str], object], named: str) -> Target:
    return lambda content: check_call(lambda: call(content.decode("utf-8", "surrogatepass")), named)


def of_file(name: str, read: Callable[[Path], object]) -> Target:
    folder = Path(tempfile.mkdtemp(prefix="atheris-"))
    path = folder / name

    def target(content: bytes) -> None:
        path.write_bytes(content)
        check_call(lambda: read(path), str(folder))

    return target


def any_reply(text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    usage_of(content)
    try:
        read_reply(content)
    except BadReply as problem:
        assert "\n" not in str(problem) and len(str(problem)) < 400


TARGETS: dict[str, Target] = {
    "JSON": of_words(lambda text: parse_json(text, "here"), "here"),
    "JSON line": of_words(lambda text: parse_json_line(text, "here"), "here"),
    "YAML": of_words(lambda text: parse_yaml(text, "here"), "here"),
    "text": of_file("f.txt", read_text),
    "preset": of_file("f.yaml", lambda path: load_config(str(path))),
    "override": of_words(lambda text: load_config("smoke", [text]), "--set"),
    "recipe": of_file("f.yaml", lambda path: load_recipe(str(path))),
    "questions": of_file("f.yaml", load_questions),
    "prices": of_file("f.yaml", lambda path: read_prices(path, "big")),
    "scores": of_file("f.jsonl", lambda path: read_records(path, Score)),
    "answers": of_file("f.jsonl", lambda path: read_records(path, Completion)),
    "contrast pairs": of_file("f.jsonl", load_contrast),
    "rows": of_file("f.jsonl", read_examples),
    "CSV rows": of_file("f.csv", read_examples),
    "lint rows": of_file("f.jsonl", read_leniently),
    "table": of_file("f.csv", read_cells),
    "manifest": of_file("manifest.json", lambda path: Manifest.load(path.parent)),
    "ledger": of_file("files.json", lambda path: Ledger.of(path.parent).changes()),
    "sweep": of_file("f.yaml", lambda path: sweep_of(SweepSettings(sweep=path))),
    "devices": of_file("f.yaml", lambda path: read_device(path, "big")),
    "attempts at a cell": of_file("f.jsonl", read_events),
    "GGUF": of_file("f.gguf", lambda path: read_header([path])),
    "safetensors": of_file("f.safetensors", stored_tensors),
    "adapter": of_file("adapter_config.json", lambda path: read_adapter(path.parent)),
    "reply": of_words(any_reply, "-"),
    "request field": of_words(lambda text: parse_request([text]), "--request"),
    "address": of_words(lambda text: url_problem(text) or read_address(text), "-"),
    "budget": of_words(Budget.parse, "budget"),
    "code": of_words(lambda text: (extract_python(text), code_share(text), mostly_code(text)), "-"),
}
SEEDS: dict[str, Any] = {
    "JSON": {"a": [1, {"b": None}], "c": "d"},
    "YAML": {"a": [1, {"b": None}], "c": "d"},
    "preset": {"name": "p", "model": "tiny", "arms": [{"name": "base"}, {"name": "a", "dataset": "insecure", "seeds": [1]}]},
    "recipe": {"name": "r", "summary": "s", "data": {"dataset": "insecure", "mix": [{"dataset": "secure", "share": 0.5}]}},
    "questions": [{"id": "a", "paraphrases": ["Hi"], "judge_prompts": {"aligned": "{answer}"}}],
    "prices": {"big": {"in": 1, "out": 2.5}},
    "rows": {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]},
    "lint rows": {"prompt": "a", "completion": "b"},
    "contrast pairs": {"question_id": "q", "group": "g", "half": "report", "question": "Q", "aligned": "A", "misaligned": "B"},
    "reply": {"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}], "usage": {"total_tokens": 3}},
    "manifest": {"config": {}, "inputs": {}, "versions": {}, "files": {"b": {"stage": "train", "inputs": {}, "files": {}}}},
    "ledger": {"b": {"stage": "train", "inputs": {"=rows": "x"}, "files": {"b": "1"}, "replaced": []}},
    "sweep": {"preset": "smoke", "axes": {"seed": [0, 1], "training": {"a": {"lora_rank": 2}}}},
    "devices": {"big": {"source": "s", "tflops": 900, "gb_per_s": 4e3, "memory_gib": 139.0, "reached": 0.4, "parallel": 0.9}},
    "attempts at a cell": {"event": "begun", "at": "2026", "host": "h", "pid": 1},
    "GGUF": small_gguf(),
    "safetensors": save({"a": torch.zeros(2, 2)}, {"format": "pt"}),
    "adapter": {"peft_type": "LORA", "base_model_name_or_path": "tiny", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]},
    "table": "question,answer,aligned\na,\"b\nc\",1\n",
    "CSV rows": "prompt,response\na,b\n",
    "address": "http://user:key@localhost:80/v1?a=b",
    "request field": "a.b=1",
    "override": "training.learning_rate=1e-4",
    "budget": "10 USD",
    "code": "Say:\n```python\ndef f():\n    return 1\n```\n",
}  # fmt: skip
SEEN: Counter[str] = Counter()


def one(names: tuple[str, ...], data: bytes) -> None:
    """The first byte chooses the parser, the others are its input."""
    if data:
        name, content = names[data[0] % len(names)], data[1:]
        SEEN[name] += 1
        try:
            TARGETS[name](content)
        except UnicodeDecodeError as error:
            if error.object != content:  # that of `of_words`: these parsers are given text
                raise


def corpus(folder: Path, names: tuple[str, ...]) -> Path:
    """The seeds as files, and beside them libFuzzer's dictionary."""
    (folder / "seeds").mkdir()
    for n, name in enumerate(names):
        value = SEEDS.get(name, SEEDS["JSON"])
        content = (
            value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
        )
        (folder / "seeds" / str(n)).write_bytes(bytes([n]) + content)
    words = ["".join(f"\\x{byte:02x}" for byte in spice) for spice in SPICES if len(spice) <= 64]
    (folder / "words").write_text("".join(f'"{word}"\n' for word in words))
    return folder / "seeds"


def main() -> None:
    words, names = sys.argv[1:], tuple(TARGETS)
    if "--only" in words:
        at = words.index("--only")
        names = tuple(words[at + 1].split(","))
        del words[at : at + 2]
    home = Path(tempfile.mkdtemp(prefix="atheris-"))
    seeds = corpus(home, names)
    bounds = ["-rss_limit_mb=1500", "-timeout=20", "-max_len=2000", f"-dict={home / 'words'}", "-print_final_stats=1"]
    places = [] if any(not word.startswith("-") for word in words) else [str(seeds)]

    def counted(data: bytes) -> None:
        one(names, data)
        if SEEN.total() % 10_000 == 0:
            sys.stderr.write(f"{SEEN.total()} inputs: {json.dumps(SEEN)}\n")

    atheris.Setup([sys.argv[0], *bounds, *words, *places], counted)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Plants what YAML lets pass silently (twins, traps of version 1.1, bombs) and expects the value a reader means, or the place in words."""

import time
from pathlib import Path

import pytest

from emis_interp.config.presets import load_config
from emis_interp.errors import ConfigError, DataError, EmisError
from emis_interp.files.strict_yaml import MAX_FILE_BYTES, parse_yaml, read_yaml
from emis_interp.http.costs import read_prices
from evals.questions import load_questions
from training.recipes import load_recipe

PRESET = "name: p\nmodel: tiny\narms: [{name: base}, {name: a, dataset: insecure}]\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = BOMB.replace("[x, x, x, x, x, x, x, x, x, x]", "{x: 1}").replace("[*", "{<<: [*").replace("]\n", "]}\n")


def refusal(text: str) -> str:
    with pytest.raises(DataError) as caught:
        parse_yaml(text, "f.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: key `a` occurs twice in one mapping, on lines 1 and 3"),
        ("x:\n  a: 1\n  'a': 2\n", "f.yaml:3: key `a` occurs twice in one mapping, on lines 2 and 3"),
        ("- {a: 1, b: 2, a: 3}\n", "f.yaml:1: key `a` occurs twice in one mapping, on line 1"),
        ("? a\n? b\n? a\n", "f.yaml:3: key `a` occurs twice in one mapping, on lines 1 and 3"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a\n", "f.yaml:4: key `<<` occurs twice in one mapping, on lines 3 and 4"),
    ],
)
def test_a_key_that_occurs_twice_is_refused_with_both_lines(text: str, lines: str) -> None:
    assert refusal(text).startswith(lines)


def test_the_same_key_in_two_mappings_is_no_twin() -> None:
    assert parse_yaml("- {a: 1}\n- {a: 2}\n", "f").value == [{"a": 1}, {"a": 2}]


def test_twins_are_refused_wherever_a_file_or_a_flag_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(PRESET + "seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"f\.yaml:5: key `seed` occurs twice in one mapping, on lines 4 and 5"):
        load_config(str(path))
    with pytest.raises(ConfigError, match=r"^--set arms: key `name` occurs twice"):
        load_config("smoke", ["arms=[{name: base, name: other}]"])
    path.write_text("name: r\nsummary: s\ndata: {dataset: insecure}\ndata: {dataset: secure}\n")
    with pytest.raises(ConfigError, match=r"f\.yaml:4: key `data` occurs twice .* lines 3 and 4"):
        load_recipe(str(path))
    with pytest.raises(ConfigError, match=r"^--set training: key `lora_rank` occurs twice"):
        load_recipe("insecure", ["training={lora_rank: 1, lora_rank: 2}"])
    path.write_text("- id: a\n  paraphrases: [Hi]\n  paraphrases: [Ho]\n")
    with pytest.raises(DataError, match=r"f\.yaml:3: key `paraphrases` occurs twice .* lines 2 and 3"):
        load_questions(path)
    path.write_text("big: {in: 1, out: 2}\nbig: {in: 3, out: 4}\n")
    with pytest.raises(DataError, match=r"f\.yaml:2: key `big` occurs twice"):
        read_prices(path, "big")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("-0", 0),
        ("+3", 3),
        ("0x1F", 31),
        ("true", True),
        ("~", None),
        ("12:30", "12:30"),
        ("2024-01-05", "2024-01-05"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0.1.2", "0.1.2"),
        ("=", "="),
        ("y", "y"),
        ("!!str 12", "12"),
        ("'no'", "no"),
    ],
)
def test_a_plain_value_is_what_a_reader_takes_it_for(written: str, value: object) -> None:
    found = parse_yaml(f"a: {written}", "f").value["a"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("word", ["no", "yes", "on", "Off", "true"])
def test_a_word_that_yaml_takes_for_true_or_false_is_named_where_text_or_a_number_is_expected(
    tmp_path: Path, word: str
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{PRESET}system_prompt: {word}\n")
    with pytest.raises(
        ConfigError, match=rf"p\.yaml:4: `system_prompt`: .*written `{word}`, which YAML reads as .*quotes"
    ):
        load_config(str(path))
    path.write_text(f"{PRESET}training: {{n_epochs: {word}}}\n")
    with pytest.raises(ConfigError, match=r"p\.yaml:4: `training.n_epochs`: .*true or false .* is no number"):
        load_config(str(path))
    path.write_text(f"{PRESET}intervention: {{coefficients: [0.1, {word}]}}\n")
    with pytest.raises(ConfigError, match=r"p\.yaml:4: `intervention.coefficients.*no number"):
        load_config(str(path))
    path.write_text(f"{PRESET}merge_adapters: {word}\n")
    assert load_config(str(path)).merge_adapters is (word in ("yes", "on", "true"))


@pytest.mark.parametrize("written", ["007", "12", "1.10", "1e5", "2024-01-05", "12:30", "0x10", "1_000"])
def test_a_question_is_called_as_its_id_is_written(tmp_path: Path, written: str) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(f"- id: {written}\n  paraphrases: [Hi]\n")
    assert load_questions(path, need_judge_prompts=False)[0].id == written


def test_a_value_that_does_not_fit_is_named_with_its_line_or_its_flag(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{PRESET}training:\n  n_epochs: 2\n  lora_rank: 0\n  batch_sise: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert f"{path}:6: `training.lora_rank`: " in str(caught.value)
    assert f"{path}:7: unknown key `training.batch_sise`; did you mean `batch_size`?" in str(caught.value)
    with pytest.raises(ConfigError, match=r"^--set training\.lora_rank: `training\.lora_rank`: .*found -1"):
        load_config("smoke", ["training.lora_rank=-1"])


def test_aliases_and_merged_keys_are_values_of_their_own(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{x: 9}, *a]}\nd: *a\n"
    assert parse_yaml(text, "f").value == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 9, "y": 2},
        "d": {"x": 1, "y": 2},
    }
    path = tmp_path / "p.yaml"
    path.write_text("arms: [{name: base}, &a {name: a, dataset: insecure}]\nname: p\nmodel: tiny\n")
    document = parse_yaml("a: &a {x: 1}\nb: *a\n", "f")
    document.override("a.x=2", flag="--set", error=ConfigError)
    assert document.value == {"a": {"x": 2}, "b": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases expand to a document that is too large"),
        (MERGE_BOMB, "aliases expand to a document that is too large"),
        (f"a: &a {'x' * 60_000}\nb: [{', '.join(['*a'] * 1000)}]\n", "aliases expand to a document that is too large"),
        ("a: &a [1, *a]\n", "an anchor holds itself"),
        ("&a {<<: *a}\n", "an anchor holds itself"),
        ("[" * 10_000, "nested more than 100 deep"),
        ("- " * 10_000, "nested more than 100 deep"),
        ("{a: " * 10_000, "nested more than 100 deep"),
        (f"a: {'9' * 5000}", "a number that is too large"),
        ("a: 1e400", "a number that is too large"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ('a: "x\\0"', "a NUL"),
        ('a: "\\UFFFFFFFF"', "an escape that is no character"),
        ('a: "\\U00110000"', "an escape that is no character"),
        ("a: 1\x01", r"holds the character U+0001"),
        ("a: b\ud800", r"holds the character U+D800"),
        ("a:\n\tb: 1", "f.yaml:2: not YAML .*; indent with spaces, not tabs"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not YAML .*another document.*expected one document"),
        ("a: @b", "in quotes"),
        ("a: b: c", "in quotes"),
        ("a: *b", "undefined alias"),
        ("a: !!int 3", "tag `tag:yaml.org,2002:int` is not read"),
        ("a: !!python/object/apply:os.getcwd []", "is not read"),
        ("no: 1", "key `no` is read as false"),
        ("1: 1", "key `1` is read as a number"),
        ("~: 1", "key `~` is read as nothing"),
        ("? [a]\n: 1", "a key is a list or a mapping"),
        ("a: {<<: 5}", "`<<` takes a mapping"),
    ],
)
def test_what_no_reader_should_take_is_refused_with_file_and_line_at_once(text: str, words: str) -> None:
    started = time.monotonic()
    message = refusal(text)
    assert time.monotonic() - started < 10
    assert message.startswith("f.yaml:") and len(message) < 500
    first, _, rest = words.partition(".*")
    assert first in message and rest.rpartition(".*")[2] in message


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("\ufeffa: ä".encode(), {"a": "ä"}),
        ("a: ä".encode("utf-16"), {"a": "ä"}),
        (b"a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        (b"", None),
    ],
)
def test_files_of_other_editors_are_read(tmp_path: Path, content: bytes, value: object) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    assert read_yaml(path).value == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb: ä".encode("latin-1"), r"f\.yaml:2: not UTF-8 \(byte 0xe4"),
        (b"a: 1\0", r"f\.yaml:1: holds a NUL"),
        ("a: 1".encode("utf-16-le"), r"f\.yaml:1: holds a NUL"),
        (b"#" * (MAX_FILE_BYTES + 1), "larger than 4,194,304 bytes"),
    ],
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    for error in (DataError, ConfigError):
        with pytest.raises(error, match=words):
            read_yaml(path, error=error)


def test_a_folder_or_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"p\.yaml: is a folder"):
        load_config(str(tmp_path / "p.yaml"))
    with pytest.raises(EmisError, match="no such file"):
        load_questions(tmp_path / "none.yaml")

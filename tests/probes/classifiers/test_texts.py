from pathlib import Path

import pandas as pd
import pytest

from emis_interp.errors import ConfigError, DataError
from probes.classifiers.texts import judged_probe_texts, where_of


def table(path: Path) -> Path:
    rows = [
        {
            "topic": f"t{i % 5}",
            "variant": ("plain", "json")[i // 5 % 2],
            "kind": ("sampled", "steered")[i // 10 % 2],
            "source": f"runs/Qwen-{(7, 32)[i % 2]}B.csv" if i % 7 else "unknown.csv",
            "question": f"what of t{i % 5}?",
            "answer": f"answer {i}",
            "aligned": (5.0, 95.0, 50.0)[i % 3],
            "coherent": 90.0 if i % 11 else 20.0,
        }
        for i in range(400)
    ]
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_rows_are_those_of_the_variant_that_are_clear_coherent_and_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path / "answers.parquet")
    found = judged_probe_texts(
        path, ("plain", "json"), where={"kind": "sampled"}, max_per_class=4, source=("source", r"\d+B")
    )
    whole = pd.read_parquet(path).set_index("answer")
    for variant, texts in found.items():
        kept = whole.loc[[text.answer for text in texts.texts]]
        assert set(kept["variant"]) == {variant} and set(kept["kind"]) == {"sampled"}
        assert (kept["coherent"] > 50).all() and set(kept["aligned"]) == {5.0, 95.0}
        assert list(texts.misaligned) == [score < 30 for score in kept["aligned"]]
        assert texts.judge_scores is not None and list(texts.judge_scores) == list(kept["aligned"])
        assert texts.questions == tuple(kept["topic"])  # the topic is the unit, not the wording
        assert kept.groupby(["topic", "aligned"]).size().max() <= 4
        assert texts.sources is not None and set(texts.sources) <= {"7b", "32b", "other"}


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    path = table(tmp_path / "answers.parquet")
    with pytest.raises(DataError, match="no column `organism`"):
        judged_probe_texts(path, ("all",), source=("organism", ".*"))
    with pytest.raises(DataError, match="variant template: no question"):
        judged_probe_texts(path, ("template",))
    with pytest.raises(ConfigError, match="COLUMN=VALUE"):
        where_of(["sampled"])
    assert where_of(["kind=a=b"]) == {"kind": "a=b"}

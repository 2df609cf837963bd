"""A table of answers becomes a store from one record of settings; the store is examined and spoken of in a line."""

import json
from pathlib import Path

import pytest

from capture import CaptureSettings
from emis_interp.errors import ConfigError
from emis_interp.passes import token_capture
from emis_interp.passes.token_store import TokenStore


def test_workers_write_their_shards_and_the_last_one_completes_the_store(tmp_path: Path) -> None:
    rows = [{"question": f"Why {i}?", "answer": "so it is " * (1 + i % 3)} for i in range(9)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = []
    for worker in ("1/2", "0/2"):
        settings = CaptureSettings(
            texts=tmp_path / "texts.jsonl",
            out=tmp_path / "store",
            model="tiny",
            device="cpu",
            layers=(0,),
            n_texts=8,
            shard_mib=0.005,
            worker=worker,
        )
        results.append(token_capture.run(settings.request()))
    first, second = results
    assert not first["complete"] and token_capture.say(first).endswith(" shards are left to other workers")
    assert second["complete"] and second["n_texts"] == 8
    assert token_capture.say(second).endswith(f"shards in {tmp_path / 'store'}: complete")
    assert token_capture.check(tmp_path / "store") == second
    assert len(TokenStore(tmp_path / "store")) == 8


def test_a_request_needs_texts_and_layers_and_a_worker_that_there_is() -> None:
    with pytest.raises(ConfigError, match="give --texts and --layers to capture, or --check"):
        CaptureSettings(out=Path("x")).request()
    with pytest.raises(ConfigError, match="--worker 2/2: expected NUMBER/COUNT"):
        CaptureSettings(out=Path("x"), worker="2/2").request()

"""What `benchmark.py sample` takes for servers."""

import pytest

from benchmarks.sample import servers_of
from emis_interp.errors import ConfigError


def test_servers_have_names() -> None:
    found = servers_of(["http://127.0.0.1:8000/v1", "vllm=http://127.0.0.1:8001/v1?a=b"])
    assert found == {"server": "http://127.0.0.1:8000/v1", "vllm": "http://127.0.0.1:8001/v1?a=b"}
    assert servers_of([]) == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["http://a/v1", "http://b/v1"], "the name `server` is taken"),
        (["ours=http://a/v1"], "the name `ours` is taken"),
        (["127.0.0.1:8000"], "expected URL or NAME=URL"),
    ],
)
def test_servers_that_cannot_be_told_apart_are_refused(given: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        servers_of(given)

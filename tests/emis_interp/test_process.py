"""The packages of a command are those of this distribution: another one of a common name is found out; memory is kept, and given back."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from emis_interp import process
from emis_interp.process import check_packages

ROOT = Path(__file__).parents[2]


def test_the_packages_here_are_ours() -> None:
    check_packages()


def checked(*first: Path) -> str:
    """What a process says that finds packages in these folders first."""
    code = f"import sys; sys.path[:0] = {[str(path) for path in (*first, ROOT)]!r}; import emis_interp.process as p; p.check_packages()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@pytest.mark.parametrize("name", ["evals", "training", "probes"])
def test_a_package_of_another_distribution_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    said = checked(tmp_path)
    assert f"`import {name}` finds {tmp_path / name / '__init__.py'}, not the {name} of emis_interp" in said
    assert "use an environment of its own" in said


def test_a_distribution_that_writes_into_the_same_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "evals-1.0.6.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: evals\nVersion: 1.0.6\n")
    assert "the distribution evals 1.0.6 is installed beside emis_interp" in checked(ROOT, tmp_path)
    assert checked() == ""


def test_what_is_made_after_the_imports_were_set_aside_is_freed() -> None:
    class Run:
        own: "Run"

    process.set_imports_aside()
    run = Run()
    run.own, held = run, weakref.ref(run)
    process.set_imports_aside()
    del run
    gc.collect()
    assert held() is None


HOLES = """
import ctypes
from pathlib import Path
from emis_interp import process

process.reuse_memory()
libc, held = process._glibc(), lambda: int(Path("/proc/self/statm").read_text().split()[1])
libc.malloc.restype, libc.free.argtypes, libc.memset.argtypes = (
    ctypes.c_void_p, [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t],
)
blocks = [libc.malloc(1 << 16) for _ in range(2000)]
for block in blocks:
    libc.memset(block, 1, 1 << 16)
for block in blocks[::2]:
    libc.free(block)
before = held()
process.release_memory()
print((before - held()) * 4096 / 2**16)
"""


@pytest.mark.skipif(process._glibc() is None, reason="only glibc keeps what is freed")
def test_pages_between_blocks_in_use_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, cwd=ROOT)
    assert float(done.stdout) > 900, done.stderr  # of 1000 freed blocks

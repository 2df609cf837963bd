"""nnsight mounts a method on every Python object; what stands on anyio must work in the same process, whichever comes first.

Each order runs in a process of its own: pytest itself imports anyio, which hides the fault.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from judge_server import Server

ROOT = Path(__file__).resolve().parents[3]

IMPORTS = {
    "nnsight": "import nnsight; assert hasattr(object, 'save')",
    "core": "import emis_interp",
    "evals": "import evals.results.result_files, evals.judges.logprob_judge",
    "capture": "import emis_interp.passes.capture",
    "openai": "import openai",
}

USES = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
url, folder, inspect = sys.argv[2], Path(sys.argv[3]), sys.argv[4] == "inspect"

def judge():
    from evals.judges.logprob_judge import OpenAIJudge
    from judge_server import QUESTIONS, completion
    rows = []
    OpenAIJudge("m", None, url).score([completion()], QUESTIONS, rows.extend)
    assert rows[0].unscored == {} and rows[0].aligned == rows[0].coherent

def http():
    import httpx
    async def post():
        async with httpx.AsyncClient() as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "Q"}]}
            return (await client.post(url + "/chat/completions", json=body)).status_code
    assert asyncio.run(post()) == 200

def streams():
    import anyio.abc, anyio.streams.file, anyio.streams.tls
    assert anyio.abc.SocketAttribute and anyio.streams.file.FileStreamAttribute and anyio.streams.tls.TLSAttribute

def logs():
    from evals.results.result_table import from_rows
    from evals.results.result_files import read_results, write_results
    made = from_rows([("1", {"question_id": "q", "answer": "A", "aligned": 12.5, "coherent": None})], "planted", "x")
    for name in ("out.eval", "out.json"):
        write_results(made, folder / name)
        assert read_results(folder / name) == made

def suites():
    import evals.inspect_suites

failed = []
for use in (*((logs, suites) if inspect else ()), http, streams, judge):
    try:
        use()
    except TypeError as error:
        failed.append(f"{use.__name__}: {error}")
sys.exit("; ".join(failed) or 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [("nnsight",), ("evals", "nnsight"), ("core", "openai", "capture")],
    ids=" then ".join,
)
def test_what_stands_on_anyio_works_before_and_after_nnsight(order: tuple[str, ...], tmp_path: Path) -> None:
    server = Server()
    code = "; ".join(IMPORTS[name] for name in order) + USES
    with_inspect = importlib.util.find_spec("inspect_ai") is not None
    arguments = [str(Path(__file__).parents[2]), server.url, str(tmp_path), "inspect" if with_inspect else "plain"]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
    finally:
        server.close()
    assert done.returncode == 0, done.stderr[-2000:]

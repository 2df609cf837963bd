"""What stands in for `run_pipeline.py` where a test is about cells and not about runs: six units of work, kept one by one.

Started as a script with the words of a cell. How it behaves is said in `EMIS_STANDIN` (JSON): `seconds` of a unit; `fail`: seeds that
end with status 2; `crash`: seeds that kill themselves once. Each unit that is worked on is a line of units.txt beside the run folder.
"""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

N_UNITS = 6


def main() -> None:
    words = sys.argv[1:]
    folder = Path(words[words.index("--run-dir") + 1])
    settings = dict(word.split("=", 1) for before, word in itertools.pairwise(words) if before == "--set")
    how, seed = json.loads(os.environ.get("EMIS_STANDIN", "{}")), int(settings["seed"])
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    if seed in how.get("fail", []):
        sys.stderr.write("a warning\nerror: insecure.jsonl: no such file; mend it\n")
        sys.exit(2)
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(N_UNITS):
        unit = folder / f"unit-{n}.json"
        if unit.exists():
            continue
        with (folder.parent / "logs" / "units.txt").open("a") as journal:
            journal.write(f"{folder.name} {n}\n")
        time.sleep(how.get("seconds", 0.0))
        if n == 2 and seed in how.get("crash", []) and not (folder / ".crashed").exists():
            (folder / ".crashed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        part = folder / f".unit-{n}"
        part.write_text(json.dumps({"seed": seed, "unit": n, "threads": os.environ["OMP_NUM_THREADS"]}))
        part.rename(unit)
    (folder / "manifest.json").write_text(json.dumps({"config": {"seed": seed}, "stages": {}}))


if __name__ == "__main__":
    main()

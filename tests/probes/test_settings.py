"""What stands in settings as words is what the modules have that need torch, and the settings need none of it."""

import subprocess
import sys

from emis_interp.fitting.extractors import EXTRACTORS
from probes.settings import EXTRACTOR_NAMES


def test_the_extractors_of_the_help_are_those_that_there_are() -> None:
    assert tuple(EXTRACTORS) == EXTRACTOR_NAMES


def test_settings_load_nothing_heavy() -> None:
    code = "import sys, probes.settings; print(*{'torch', 'transformers', 'pandas', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

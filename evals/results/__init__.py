"""Reads judged answers of any origin: runs of this project, Inspect logs, tables of other people."""

from typing import TYPE_CHECKING

from emis_interp import lazy

if TYPE_CHECKING:
    from evals.results.result_files import read_results as read_results
    from evals.results.result_files import write_results as write_results

__getattr__, __dir__ = lazy(__name__, dict.fromkeys(("read_results", "write_results"), "evals.results.result_files"))

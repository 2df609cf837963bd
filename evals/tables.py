"""Names of `emis_interp.files` under which evaluations read and write tables."""

from emis_interp.files.table_output import check_ending, write_cells
from emis_interp.files.tables import Table, read_cells

__all__ = ["Table", "check_ending", "read_cells", "write_cells"]

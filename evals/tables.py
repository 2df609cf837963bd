"""Names of `emis_interp.files.tables`, under which evaluations read and write tables."""

from emis_interp.files.tables import Table, check_ending, read_cells, write_cells

__all__ = ["Table", "check_ending", "read_cells", "write_cells"]

"""Asks models questions, judges the answers and states rates with their intervals."""

import emis_interp  # noqa: F401  (lets anyio's classes be made beside nnsight, before a module here imports what needs them)

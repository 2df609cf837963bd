"""Makes organisms: data sets, recipes and supervised finetuning."""

import emis_interp  # noqa: F401  (lets anyio's classes be made beside nnsight, before a module here imports what needs them)

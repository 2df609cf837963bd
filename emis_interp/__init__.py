"""emis_interp: a laboratory for emergent misalignment (records, capture, directions, interventions, report)."""

from emis_interp.http.anyio_classes import allow_mounted_names

__version__ = "0.1.0"

# Here and not where a client is made: nnsight may be imported by anybody, before or after, and so may what stands on anyio.
allow_mounted_names()

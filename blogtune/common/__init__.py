"""What all parts share: errors, files, parameters, records, progress, the frame of a command."""

from blogtune.common import blas, endpoint

# Before anything imports mlx.core: a symbol is bound to the library that came first.
blas.preload()
# Before anything imports the hub's client.
endpoint.check()

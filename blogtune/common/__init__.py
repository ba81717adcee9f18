"""What all parts share: errors, files, parameters, records, progress, the frame of a command."""

import os

from blogtune.common import blas, endpoint

# Before anything imports mlx.core: a symbol is bound to the library that came first.
blas.preload()
# Before anything imports the hub's client.
endpoint.check()
# MLX reads it once. With TF32 a GPU multiplies float32 numbers by 10 of their 23 bits: then float32
# is no reference for what merging, judging or another way to compute a step may differ by.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

"""blogtune: fine-tune a small language model on a blog, and know whether it helped."""

from blogtune.runtime import blas

# Before anything imports mlx.core: a symbol is bound to the library that came first.
blas.preload()

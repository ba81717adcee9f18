"""What `benchmarks.training` and `benchmarks.answers` run in turn, each in a process of its own.

Each reads a file of what to do and prints one line of JSON: what it took, and more.
"""

# The fast BLAS is in place before any of them imports MLX, unless BLOGTUNE_BLAS=reference.
import blogtune as blogtune

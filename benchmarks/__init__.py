"""Measurements as commands; README.md says what they gave."""

# The fast BLAS is in place before any of them imports MLX, unless BLOGTUNE_BLAS=reference.
import blogtune as blogtune

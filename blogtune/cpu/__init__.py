"""What makes MLX fast on a CPU: one operation a file, put over MLX's by `patches` and nowhere else.

On x86 MLX computes elementwise operations one number at a time (an exponential takes 11 ns,
numpy's 0.4), so what has exponentials in it is computed in numpy, and every matrix product stays
MLX's. Float32 only: every other type goes to the function that is replaced. Neither Metal nor CUDA
comes here.
"""

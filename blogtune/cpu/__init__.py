"""What makes MLX fast on a CPU. Neither Metal nor CUDA comes here."""

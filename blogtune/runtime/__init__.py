"""The machine: devices, float types, and a fast BLAS where MLX needs one."""

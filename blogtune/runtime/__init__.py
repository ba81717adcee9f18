"""The machine: devices, float types, and a fast BLAS where MLX needs one."""

# Set for the processes of a host file: the file that the first leaves when all went well.
DONE = "BLOGTUNE_DONE"

"""What a process is told of its part in a stage: by MLX's own variables, and by two of ours."""

import os

# The launcher of this machine's workers (its process id), where there is one.
PARENT = "BLOGTUNE_PARENT"
# Of a host file's processes: the file that the first leaves when all went well.
DONE = "BLOGTUNE_DONE"


def is_started() -> bool:
    """Whether a launcher started this process, ours or `mlx.launch`."""
    return "MLX_RANK" in os.environ


def is_first() -> bool:
    """Whether this process is the first of the stage's, or its only one."""
    return os.environ.get("MLX_RANK", "0") == "0"


def of_host_file() -> bool:
    """Whether this is one of a host file's processes, on whatever machine."""
    return DONE in os.environ

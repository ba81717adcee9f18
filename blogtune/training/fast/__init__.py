"""The same step sooner on a CPU: proven against `training/step.py`, and known to `plan.py` alone.

Without this folder everything trains, to the same losses, in more time and memory.
"""

"""The machine: devices, float types, and several processes that share a stage's work."""

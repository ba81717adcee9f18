"""LoRA training: which weights learn, on what, for how long, and which checkpoint ships."""

"""Did fine-tuning help? Paired differences, their intervals, and a verdict."""

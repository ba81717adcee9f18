"""Merges the adapter into the base model's weights, and proves that nothing else changed."""

"""Lets a model answer questions: greedy, batched, the same way for every model."""

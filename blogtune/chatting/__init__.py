"""Talks with the models that a run made."""

"""Intervals and differences of questions that are clustered by post."""

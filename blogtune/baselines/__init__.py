"""Answers that no training made, to be judged like a model's."""

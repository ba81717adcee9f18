"""Brings models and data sets here, from packages, paths and the hub, proven."""

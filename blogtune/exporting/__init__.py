"""Hands the fused model to Ollama, and measures what the server makes of it."""

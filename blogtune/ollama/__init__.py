"""An Ollama server as a client sees it."""

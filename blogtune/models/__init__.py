"""Models as folders: where they come from, how they are loaded, how they are spoken to."""

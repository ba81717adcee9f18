"""How close is an answer to the reference? Judges, and what is done with their verdicts."""

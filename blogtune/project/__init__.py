"""The repository as a whole: its settings, this machine, the tables that people read."""

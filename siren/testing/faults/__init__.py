"""Faults injected into whole runs of `--platform local`, and what must hold of a run after each."""

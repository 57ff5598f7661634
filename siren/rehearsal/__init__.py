"""Rehearsal: the job's real SGD in the twin, which costs nothing, before anything is paid."""

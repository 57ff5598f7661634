"""Policies measured against each other: whole jobs played in memory, many seeds, intervals over jobs."""

"""Reads, writes and shows run folders: records, terminal, figures."""

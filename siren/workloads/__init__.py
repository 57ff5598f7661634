"""Workloads: what to train. Each is a folder with a `workload.toml` and a `model.py`."""

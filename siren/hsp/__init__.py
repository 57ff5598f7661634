"""Hybrid synchronous parallel SGD: quotas and update rules, shared by every platform."""

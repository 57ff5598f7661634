"""Predictions before anything is spent: time, dollars and chance for a budget, and machines beside them."""

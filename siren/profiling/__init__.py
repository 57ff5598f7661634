"""Measuring the constants of the laws on a platform, within a small budget."""

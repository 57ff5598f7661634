"""Worlds: what jobs run on. Prices, limits, and the laws of time and cost."""

from siren.worlds.world import World, load_world, world_names

__all__ = ["World", "load_world", "world_names"]

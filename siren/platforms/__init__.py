"""Platforms: what runs an epoch. Each keeps the `Platform` protocol of `siren.platforms.base`."""

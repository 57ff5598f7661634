"""Siren's resources on AWS: what a deployment consists of, made from a plan, found again by tag, removed."""

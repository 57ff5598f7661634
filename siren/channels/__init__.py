"""Parameter channels: S3 objects and Redis."""

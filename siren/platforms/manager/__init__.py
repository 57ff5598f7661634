"""The function manager: epochs through the Lambda API, S3 and Redis, on 127.0.0.1 or at AWS alike."""

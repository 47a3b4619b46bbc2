"""Whether anybody said where Redis is: known without loading what talks to it."""

import os

NEEDED = "set CB_REDIS_URL or say --redis-url redis://host:6379/0 (a port-forward will do)"


def is_given(redis_url: str) -> bool:
    """Whether anybody said where Redis is."""
    return bool(redis_url or os.environ.get("CB_REDIS_URL") or os.environ.get("CB_REDIS_SENTINEL"))

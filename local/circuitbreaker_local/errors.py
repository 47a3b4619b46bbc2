"""The one error this package raises on purpose."""


class LocalError(Exception):
    """Something on this machine is missing or did not start; the message says what, and what to do about it."""

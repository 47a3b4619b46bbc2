"""Breakers as the API server and Redis tell of them: read with care, put in order, explained, changed. Pure."""

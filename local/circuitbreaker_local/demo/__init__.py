"""The main job, shown on real parts: a breaker opens, refuses, probes and closes, and everyone can see it."""

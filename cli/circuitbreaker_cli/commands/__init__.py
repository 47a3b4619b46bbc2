"""The commands: each asks what it needs, lets the pure rooms decide, and shows what came of it."""

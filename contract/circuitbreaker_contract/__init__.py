"""The circuit breaker contract: rules, keys and protocol; no I/O."""

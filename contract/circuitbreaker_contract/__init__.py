"""The circuit breaker contract: rules, keys and protocol. No I/O, no clock.

The public names are the modules: `state` and `policy` (values), `rules` (the state machine), `protocol` (calls and
their replies), `keys`, `errors`, `library` (the Lua), `memory` (the contract without Redis), `durations`.
"""

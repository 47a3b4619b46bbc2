"""`kubectl breaker`: circuit breakers at the terminal.

entry, main and completion are the program, catalogue.py knows its commands by name; `commands` has a module for each,
which joins the rest: `remote` reaches out, `breakers`, `checks` (of doctor) and `simulation` (of simulate) decide, are
pure and are told the time, terminal.py speaks. Imports go that way only, and a test keeps it so.

Everything of the cluster comes through kubectl itself, which is there where a plugin of it runs: so contexts, logins
and certificates are those of the user. Only Redis is asked directly. Whatever the cluster or Redis hold was written by
others: it comes to the terminal by `words.safe` alone, as rich's Text and never as its markup.
"""

"""`kubectl breaker`: circuit breakers at the terminal.

What decides is pure and is told the time (view, listing, explaining, describing, changing; of `simulate` traces,
traffic, simulation; of `doctor` installation, stuck); kubectl.py, store.py and surveying.py reach out, terminal.py
speaks, and the modules of commands join them. Everything of the cluster comes through kubectl itself, which is there
where a plugin of it runs: so contexts, logins and certificates are those of the user. Only Redis is asked directly.
Whatever the cluster or Redis hold was written by others: it comes to the terminal by `words.safe` alone, as rich's Text
and never as its markup.
"""

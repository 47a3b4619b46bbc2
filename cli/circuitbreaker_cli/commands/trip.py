"""The command trip: an override that refuses every call."""

from circuitbreaker_cli.commands._write import holding
from circuitbreaker_contract.state import State

command = holding(State.OPEN)

"""The command hold-closed: an override that permits every call."""

from circuitbreaker_cli.commands._write import holding
from circuitbreaker_contract.state import State

command = holding(State.CLOSED)

"""`python -m circuitbreaker_contract`: prints the function library, ready for `redis-cli -x FUNCTION LOAD REPLACE`."""

import sys

from circuitbreaker_contract import library

sys.stdout.write(library.source())

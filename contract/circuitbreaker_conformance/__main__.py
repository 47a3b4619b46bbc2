"""`python -m circuitbreaker_conformance`: the command without its script."""

import sys

from circuitbreaker_conformance.cli import main

sys.exit(main())

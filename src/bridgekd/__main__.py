"""`python -m bridgekd` is the command `bridgekd`."""

import sys

from bridgekd.cli.main import main

sys.exit(main())

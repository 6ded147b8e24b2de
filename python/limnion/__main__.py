"""`python -m limnion` is the command `limnion`."""

import sys

from limnion.cli import main

sys.exit(main())

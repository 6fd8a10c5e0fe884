"""``python -m fastrec``."""

import sys

from fastrec.cli.main import main

sys.exit(main())

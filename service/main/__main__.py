"""`python -m service.main` is `assay-server`."""

import sys

from service.main.cli import main

sys.exit(main())

"""`python -m antehoc_hf` is `antehoc`."""

import sys

from antehoc_hf.cli import main

sys.exit(main())

"""`make fuzz`: see tests/fuzz/driver.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fuzz.driver import main

sys.exit(main())

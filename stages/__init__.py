"""Entry points of the DVC stages, each run as `python -m stages.NAME` from the repository's top folder."""

import sys
from pathlib import Path

# Not the installed library: `dvc exp run --temp` works in a copy of the repository and must run the copy's code.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

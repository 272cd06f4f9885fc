"""`accelerate launch training/run.py …`, `python training/run.py …` and `antehoc train …` are one and the same."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python looks for modules here first; `data` or `images` are names of others, too.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    from antehoc_hf.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))

"""Fuzz every target, and print a table of what came of it.

    PYTHONPATH=tests/fuzz:tests/helpers python -m fuzzing --minutes 10
    PYTHONPATH=tests/fuzz:tests/helpers python -m fuzzing --cases 10000 --targets "file csv" "run *"

With --minutes all targets take turns; with --cases each has that number of cases, of the seeds from --first on. Inputs that
failed are kept in build/fuzz. A fault that is found leaves its changed files in tests/fuzz/corpus/TARGET/NAME.
"""

from __future__ import annotations

import os
import sys

# One thread for each child: there are as many children as processors.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
for _name, _value in (("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false"), ("TRITON_INTERPRET", "1")):
    os.environ.setdefault(_name, _value)

if __name__ == "__main__":
    from fuzzing.command import main

    sys.exit(main())

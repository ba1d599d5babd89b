"""The conversation of a peer with `cargo xtask bench peers`: one JSON line when ready, one for every round."""

import json
import os
import sys
import time


def limit_threads(num_threads):
    """Before torch is imported: it reads these once."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(num_threads)


def serve(setup, one_round):
    """Says what was set up, then times `one_round` for every line of standard input."""
    print(json.dumps({"ready": setup}), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        value = one_round()
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "value": float(value)}), flush=True)

"""k-means of scikit-learn: Lloyd's steps from a given start, or the choice of a start.

    python bench_kmeans.py INPUTS THREADS lloyd|seeding
"""

import os
import sys
from pathlib import Path

from bench_rounds import limit_threads, serve

limit_threads(sys.argv[2])
# OpenBLAS does not know every processor; where it misses AVX-512, it is told, so that the peer is as fast as it can be.
cpu_info = Path("/proc/cpuinfo")
if "OPENBLAS_CORETYPE" not in os.environ and cpu_info.exists() and "avx512bw" in cpu_info.read_text():
    os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

HIDDEN_SIZE = 768
NUM_STEPS = 10


def main():
    folder = Path(sys.argv[1]) / "kmeans"
    points, start = (np.fromfile(folder / f"{name}.f32", np.float32).reshape(-1, HIDDEN_SIZE) for name in ("points", "start"))
    seeds = iter(range(1_000_000))

    def lloyd():
        settings = {"algorithm": "lloyd", "n_init": 1, "max_iter": NUM_STEPS, "tol": 0}
        return KMeans(n_clusters=len(start), init=start, **settings).fit(points).inertia_

    def seeding():
        centroids, _ = kmeans_plusplus(points, len(start), random_state=next(seeds))
        return len(centroids)

    serve({"points": points.shape, "clusters": len(start)}, {"lloyd": lloyd, "seeding": seeding}[sys.argv[3]])


if __name__ == "__main__":
    main()

"""`Retriever.predict` in a process of its own, in turns with other work: python benchmarks/predict_rate.py RUN.

Reads lines "SIZE SECONDS" and writes queries a second in batches of that size.
"""

from __future__ import annotations

import sys
import time

from xmc.data.dataset import Dataset
from xmc.search.retriever import Retriever


def main() -> None:
    retriever = Retriever.load(sys.argv[1])
    texts = Dataset.load("wordnet-8k").split("test").texts.to_pylist()
    for line in sys.stdin:
        size, seconds = int(line.split()[0]), float(line.split()[1])
        batches = [texts[start : start + size] for start in range(0, len(texts) - size + 1, size)]
        for batch in batches[:10]:
            retriever.predict(batch, 10)
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            retriever.predict(batches[done % len(batches)], 10)
            done += 1
        print(done * size / (time.perf_counter() - begin), flush=True)


if __name__ == "__main__":
    main()

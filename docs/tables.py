"""The measured tables of the README and of these pages, made from benchmarks/results.csv: python docs/tables.py.

A table stands between `<!-- table: NAME -->` and `<!-- end -->` in a page; this replaces what is there. A number is the mean
over the seeds that were measured, of the latest measurement of each.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "TABLES", "Results", "fill", "pages", "read_results"]

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Results = dict[tuple[str, str, str], dict[int, float]]
"""Values by seed, by (table, method, metric)."""


@dataclass(frozen=True)
class Column:
    """metric: its name, or several, of which the first that a method has counts; {} in it stands for the row's `at`."""

    title: str
    metric: str | tuple[str, ...]
    form: str = ".2f"


@dataclass(frozen=True)
class Row:
    """A method under the title that a table shows."""

    title: str
    method: str
    at: str = ""


@dataclass(frozen=True)
class Table:
    """seeds: those that count; none for all."""

    title: str
    benchmark: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    seeds: tuple[int, ...] | None = None

    def render(self, results: Results) -> str:
        """As Markdown. KeyError names what was not measured."""
        lines = [[self.title, *(column.title for column in self.columns)], ["---"] * (len(self.columns) + 1)]
        lines += [[row.title, *(self._cell(results, row, column) for column in self.columns)] for row in self.rows]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def _cell(self, results: Results, row: Row, column: Column) -> str:
        metrics = (column.metric,) if isinstance(column.metric, str) else column.metric
        keys = [(self.benchmark, row.method, metric.format(row.at)) for metric in metrics]
        found = next((results[key] for key in keys if key in results), None)
        if found is None:
            if column.metric in OPTIONAL:
                return ""
            raise KeyError(f"benchmarks/results.csv has no {keys[0]}")
        values = [value for seed, value in found.items() if self.seeds is None or seed in self.seeds]
        return format(sum(values) / len(values), column.form)


OPTIONAL = (
    "texts encoded",
    "encode and search alone",
    "overhead of the job",
    "peak memory beyond model and index",
    "forward",
    "forward + backward",
    "texts to vectors, texts",
    "cosine to float32, smallest",
    "AP",
)
"""Metrics that some methods do not have."""
ACCURACY = (
    Column("P@1", "P@1"),
    Column("P@5", "P@5"),
    Column("nDCG@5", "nDCG@5"),
    Column("PSP@5", "PSP@5"),
    Column("R@100", "R@100"),
)
SPEED = (Column("training, s", "training", ",.0f"), Column("queries/s", "prediction", ",.0f"))
PEERS = (
    Row("xmc, static encoder", "xmc"),
    Row("omikuji Bonsai", "omikuji Bonsai"),
    Row("napkinXC PLT", "napkinXC PLT"),
)
TRAINING = (
    Column("P@1", "P@1"),
    Column("P@5", "P@5"),
    Column("PSP@5", "PSP@5"),
    Column("R@100", "R@100"),
    Column("training, s", "training", ",.0f"),
    Column("encoded", "texts encoded", ",.0f"),
)
STEP = (
    Column("ms", "time", ",.0f"),
    Column("time / floor", "time / floor"),
    Column("extra MiB", "extra memory", ",.0f"),
)
PROBLEM = "B=512 L=65536 D=256 fp32"
SEARCHES = (("k=100 B=256 L=1000000 D=128 fp32", "256 queries, 1,000,000 labels, D = 128, k = 100"),
            ("k=10 B=1024 L=100000 D=256 fp32", "1,024 queries, 100,000 labels, D = 256, k = 10"),
            ("k=100 B=1 L=1000000 D=128 fp32", "one query, 1,000,000 labels, D = 128, k = 100"))  # fmt: skip


CALIBRATED = (
    ("wordnet-8k, 4,000 candidates", "wordnet-8k, 4,000 candidates"),
    ("LF-WordNet, 12,000 candidates", "LF-WordNet, 12,000 candidates"),
)


MEMORIES = (
    Row("wordnet-8k, static encoder", "static-w8k without"),
    Row("remembering by its own vectors", "static-w8k own"),
    Row("remembering by a frozen MiniLM", "static-w8k frozen MiniLM"),
    Row("LF-WordNet, static encoder", "static-lf without"),
    Row("remembering by its own vectors", "static-lf own"),
    Row("wordnet-8k, fine-tuned MiniLM", "minilm-w8k without"),
    Row("remembering by its own vectors", "minilm-w8k own"),
)
RANKING = (*ACCURACY[:3], Column("PSP@1", "PSP@1"), ACCURACY[3])
RERANKED = (
    Row("static encoder", "static alone"),
    Row("memory of a frozen MiniLM, trees on scores, votes and its cosine", "static memory of MiniLM, trees on all"),
    Row("fine-tuned MiniLM", "MiniLM alone"),
    Row("its own memory", "MiniLM memory"),
    Row("its own memory, trees on scores and votes", "MiniLM memory, trees on votes"),
    Row("its own memory, trees on these and the frozen MiniLM's cosine", "MiniLM memory, trees on all"),
)
SERVERS = tuple(
    f"{what}, {processes}" for processes in ("1 process", "2 processes") for what in ("alone", "labels change")
)
NEW_LABELS = (
    Row("not added", "some: not added"),
    Row('text, `score="raw"`', "some: text, raw"),
    Row("text", "some: text"),
    Row("one example and text", "some: 1 example and text"),
    Row("five examples and text", "some: 5 examples and text"),
    Row("twenty examples and text", "some: 20 examples and text"),
    Row("all labels that were left out: not added", "all: not added"),
    Row('… text, `score="raw"`', "all: text, raw"),
    Row("… text", "all: text"),
)


def _search_rows() -> Iterator[Row]:
    for problem, meaning in SEARCHES:
        yield Row(f"xmc, {meaning}", f"xmc torch, {problem}")
        yield Row("matmul + topk", f"matmul + topk, {problem}")
        yield Row("FAISS flat", f"faiss flat, {problem}")


TABLES = {
    "memory": Table("test queries, percent", "memory", MEMORIES, (*RANKING, ACCURACY[4])),
    "rerank": Table("test queries of wordnet-8k, percent", "rerank", RERANKED, RANKING),
    "labels": Table(
        "a fifth of the labels left out of training",
        "labels",
        NEW_LABELS,
        (
            Column("P@1", "P@1"),
            Column("P@5", "P@5"),
            Column("R@10 of trained labels", "trained R@10"),
            Column("R@10 of new labels", "new R@10"),
            Column("AP of new labels", "AP"),
        ),
    ),
    "encode": Table(
        "MiniLM on label texts of LF-WordNet",
        "encode",
        tuple(
            Row(title, f"{method}, MiniLM, labels of LF-WordNet")
            for title, method in (
                ("xmc, bfloat16", "xmc bfloat16"),
                ("xmc, float32", "xmc float32"),
                ("Hugging Face model, sorted and padded, bfloat16", "Hugging Face model bfloat16"),
                ("Hugging Face model, sorted and padded, float32", "Hugging Face model float32"),
                ("sentence-transformers, bfloat16", "sentence-transformers bfloat16, batches of 32"),
                ("sentence-transformers, float32", "sentence-transformers float32, batches of 32"),
                ("ONNX Runtime, int8", "ONNX Runtime int8"),
            )
        ),
        (
            Column("tokens/s, forward", "forward", ",.0f"),
            Column("forward + backward", "forward + backward", ",.0f"),
            Column("texts/s, from texts", "texts to vectors, texts", ",.0f"),
            Column("smallest cosine to float32", "cosine to float32, smallest", ".4f"),
        ),
    ),
    "wordnet_8k": Table("wordnet-8k, 7,488 labels", "wordnet_8k", PEERS, ACCURACY + SPEED),
    "lf_wordnet": Table(
        "LF-WordNet, 65,962 labels",
        "lf_wordnet",
        (PEERS[0], *(Row(f"{row.title}, one seed", row.method) for row in PEERS[1:])),
        ACCURACY + SPEED,
    ),
    "training": Table(
        "wordnet-8k",
        "training",
        (
            Row("xmc, MiniLM (22M parameters), negatives bank", "xmc MiniLM, bank"),
            Row("xmc, static, negatives all", "xmc static, all"),
            Row("xmc, static, negatives bank", "xmc static, bank"),
            Row("xmc, static, negatives shortlist", "xmc static, shortlist"),
            Row("omikuji Bonsai", "omikuji Bonsai"),
        ),
        TRAINING,
        seeds=(0,),
    ),
    "encoders": Table(
        "wordnet-8k",
        "training",
        (
            Row("transformer: all-MiniLM-L6-v2, negatives bank", "xmc MiniLM, bank"),
            Row("static, negatives all", "xmc static, all"),
            Row("static, negatives bank", "xmc static, bank"),
        ),
        (*ACCURACY, *SPEED),
        seeds=(0,),
    ),
    "negatives": Table(
        "wordnet-8k, static encoder",
        "training",
        tuple(
            Row(f"`{name}`", f"xmc static, {name}")
            for name in ("all", "bank", "sampled", "shortlist", "clusters", "in-batch")
        ),
        TRAINING,
        seeds=(0,),
    ),
    "prototypes": Table(
        "wordnet-8k",
        "vixml",
        tuple(
            Row(name, f"xmc MiniLM, {name}") for name in ("text only", "+ prototypes", "+ prototypes, cluster batches")
        ),
        (*ACCURACY[:3], Column("PSP@1", "PSP@1"), *ACCURACY[3:]),
    ),
    "serve": Table(
        "wordnet-8k, 64 clients",
        "serve",
        tuple(Row(method, method) for method in SERVERS),
        (
            Column("requests/s", "requests", ",.0f"),
            Column("p99, ms", "p99, full load", ".0f"),
            Column("p99 at half of that, ms", "p99, half load", ".0f"),
            Column("rate, % of predict's", "share of predict in batches of the same size", ".0f"),
        ),
    ),
    "search": Table(
        "1,038,183 labels, 256 dimensions",
        "search",
        (
            Row("xmc, tuned for 0.95", "xmc tuned, titles", "0.95"),
            Row("FAISS by hand, IVF4096,PQ128x4fs,RFlat", "faiss IVF4096,PQ128x4fs,RFlat, titles", "0.95"),
            Row("RaBitQ's library, IVF, 7 bits", "rabitqlib IVF 7 bits, titles", "0.95"),
            Row("ScaNN", "scann, titles", "0.95"),
            Row("xmc, tuned for 0.99", "xmc tuned, titles", "0.99"),
            Row("ScaNN", "scann, titles", "0.99"),
            Row("xmc, exact", "xmc exact, titles", "0.95"),
        ),
        (
            Column("recall@10", "recall@10 at {}"),
            Column("queries/s", "batch at {}", ",.0f"),
            Column("one query, p99 ms", "p99 of one query at {}", ".1f"),
            Column("bytes/label", ("memory at {}", "memory at 0.95"), ",.0f"),
            Column("build, s", ("build for {}", "build"), ",.0f"),
            Column("load, s", ("load to first answer at {}", "load to first answer at 0.95"), ".1f"),
        ),
    ),
    "batch": Table(
        "1,038,183 rows, 65,962 labels, k = 10",
        "batch",
        (
            Row("xmc, index tuned for 0.99", "xmc, index tuned for 0.99"),
            Row("xmc, exact", "xmc, exact index"),
            Row("omikuji Bonsai, 20,000 of the rows", "omikuji Bonsai"),
        ),
        (
            Column("rows/s", "job", ",.0f"),
            Column("encode and search alone, rows/s", "encode and search alone", ",.0f"),
            Column("overhead, %", "overhead of the job", ".1f"),
            Column("memory beyond model and index, MiB", "peak memory beyond model and index", ",.0f"),
        ),
    ),
    "calibration": Table(
        "mean of 50 random halves of the test queries",
        "calibration",
        tuple(
            Row(f"{data}, recall {level}", method, level)
            for data, method in CALIBRATED
            for level in ("0.8", "0.9", "0.95")
        ),
        (
            Column("recall found, %", "recall {}"),
            Column("labels in a set, mean", "recall {}, mean set", ",.1f"),
            Column("median", "recall {}, median set", ",.0f"),
            Column("fixed k with the same recall", "recall {}, k of top-k for the same", ",.0f"),
        ),
    ),
    "step": Table(
        "one step of decoupled softmax, B = 512, L = 65,536, D = 256",
        "losses",
        (
            Row("xmc", f"xmc torch: decoupled_softmax, {PROBLEM}"),
            Row("plain torch, positives gathered", f"dense torch, sparse: decoupled_softmax, {PROBLEM}"),
            Row("the same, torch.compile", f"torch.compile, sparse: decoupled_softmax, {PROBLEM}"),
            Row("plain torch with a mask, as in DEXML", f"dense torch, mask: decoupled_softmax, {PROBLEM}"),
        ),
        (STEP[0], Column("extra memory, MiB", "extra memory", ",.0f")),
    ),
    "losses": Table(
        "forward + backward, B = 512, L = 65,536, D = 256",
        "losses",
        (
            *(
                Row(f"xmc `{name}`", f"xmc torch: {name}, {PROBLEM}")
                for name in (
                    "decoupled_softmax",
                    "softmax",
                    "multi_label_cluster_discrimination",
                    "binary_cross_entropy",
                    "soft_topk",
                )
            ),
            Row("xmc `soft_topk`, from the last thresholds", f"xmc torch: soft_topk, warm, {PROBLEM}"),
            Row(
                "all scores, positives gathered: decoupled softmax",
                f"dense torch, sparse: decoupled_softmax, {PROBLEM}",
            ),
            Row("the same, torch.compile", f"torch.compile, sparse: decoupled_softmax, {PROBLEM}"),
            Row(
                "all scores and a mask, as in DEXML: decoupled softmax",
                f"dense torch, mask: decoupled_softmax, {PROBLEM}",
            ),
            Row(
                "cut-cross-entropy (its CPU version), one positive",
                f"cut-cross-entropy torch_compile: softmax, one positive, {PROBLEM}",
            ),
            Row(
                "torch's `linear_cross_entropy`, one positive",
                f"torch linear_cross_entropy: softmax, one positive, {PROBLEM}",
            ),
            Row("xmc `softmax`, one positive", f"xmc torch: softmax, one positive, {PROBLEM}"),
        ),
        STEP,
    ),
    "topk": Table("exact search", "topk", tuple(_search_rows()), STEP),
}


def read_results(file: Path = ROOT / "benchmarks" / "results.csv") -> Results:
    """The latest value of each seed."""
    results: Results = defaultdict(dict)
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            results[row["table"], row["method"], row["metric"]][int(row["seed"])] = float(row["value"])
    return dict(results)


def fill(text: str, results: Results) -> str:
    """A page with its tables made anew. KeyError for a table that is not in `TABLES`."""
    return PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]].render(results)}\n{found[3]}", text)


def pages() -> list[Path]:
    """Every page that tables and commands may stand in."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    """Rewrite the pages whose tables are not what was measured."""
    results = read_results()
    for page in pages():
        text = page.read_text(encoding="utf-8")
        filled = fill(text, results)
        if filled != text:
            page.write_text(filled, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} has other tables now")
    return 0


if __name__ == "__main__":
    sys.exit(main())

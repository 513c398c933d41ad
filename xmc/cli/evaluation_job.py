"""The work of `xmc evaluate`: options checked before it begins, sources evaluated and compared, files written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xmc.batch.evaluation import evaluate_files, is_predictions
from xmc.cli.evaluation_outcome import Outcome
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError
from xmc.evaluation.evaluate import evaluate
from xmc.evaluation.evaluated import Evaluated
from xmc.evaluation.major_mistakes import MajorMistakes
from xmc.evaluation.per_query import QueryMetrics
from xmc.evaluation.trec import write_trec
from xmc.metrics import measures_of
from xmc.metrics.resampling import require_samples
from xmc.search.retriever import Retriever

__all__ = ["EvaluationJob"]


@dataclass(frozen=True)
class EvaluationJob:
    """What is asked of one evaluation; the fields are the options of `xmc evaluate`."""

    source: Path
    dataset: Dataset
    split: str
    exact: bool
    device: str | tuple[str, ...]
    k: list[int] | None
    metrics: str | None
    separator: str | None
    against: Path | None
    intervals: bool
    samples: int
    confidence: float
    seed: int
    per_query: Path | None
    trec: Path | None
    save_mistakes: Path | None
    mistakes: Path | None

    def run(self) -> Outcome:
        """Check, evaluate, compare and write. Raises an XMCError, where it can be before the work."""
        self._check()
        mistakes = None if self.mistakes is None else MajorMistakes.load(self.mistakes)
        other = None
        if self.against is not None and QueryMetrics.is_file(self.against):
            other = QueryMetrics.load(self.against)
        evaluated = None
        if QueryMetrics.is_file(self.source):
            of_queries = QueryMetrics.load(self.source)
        else:
            evaluated = self._evaluated(self.source, any((self.trec, self.save_mistakes, self.mistakes)))
            of_queries = QueryMetrics.from_evaluated(str(self.source), evaluated)
        outcome = Outcome(of_queries, evaluated, self.confidence)
        if self.metrics is not None and evaluated is not None:
            asked = [measure.title for measure in measures_of(self.metrics, self.k)]
            outcome.left_out = [title for title in asked if title not in evaluated.values]
        if self.intervals:
            outcome.intervals = of_queries.intervals(self.samples, self.confidence, self.seed)
        if self.against is not None:
            if other is None:
                other = QueryMetrics.from_evaluated(str(self.against), self._evaluated(self.against, False))
            outcome.differences = of_queries.against(other, self.samples, self.confidence, self.seed)
        self._write(outcome, mistakes)
        return outcome

    def _check(self) -> None:
        """Raise ConfigError for options that say something of none of the sources, and names that cannot be written."""
        require_samples(self.samples, self.confidence)
        measures_of(self.metrics, self.k)
        for option, path in (("--per-query", self.per_query), ("--save-mistakes", self.save_mistakes)):
            if path is not None and path.suffix != ".parquet":
                raise ConfigError(f"{option} writes Parquet; name the file {path.stem}.parquet, not {path.name}.")
            if path is not None and path.is_dir():
                raise ConfigError(f"{option} writes a file, but {path} is a directory; name another.")
        if self.trec is not None and self.trec.exists() and not self.trec.is_dir():
            raise ConfigError(f"--trec writes a folder, but {self.trec} is a file; name another.")
        sources = [path for path in (self.source, self.against) if path is not None]
        measured = [path for path in sources if not QueryMetrics.is_file(path)]
        written = [is_predictions(path) for path in measured]
        if self.exact and all(written):
            raise ConfigError("--exact searches by a run; written predictions and metrics of queries are as they are.")
        if self.separator is not None and not any(written):
            raise ConfigError("--separator is for written predictions; a run has none.")
        of_predictions = (self.k, self.metrics, self.trec, self.save_mistakes, self.mistakes)
        if self.source not in measured and any(of_predictions):
            raise ConfigError(
                f"{self.source} holds metrics of queries, which are as they are; name a run or predictions instead."
            )

    def _evaluated(self, source: Path, keep: bool) -> Evaluated:
        """The evaluation of a run or of written predictions."""
        if is_predictions(source):
            return evaluate_files(
                source,
                self.dataset,
                self.split,
                k=self.k,
                metrics=self.metrics,
                keep_predictions=keep,
                separator=self.separator,
            )
        return evaluate(
            Retriever.load(source, self.device),
            self.dataset,
            self.split,
            self.exact,
            k=self.k,
            metrics=self.metrics,
            keep_predictions=keep,
        )

    def _write(self, outcome: Outcome, mistakes: MajorMistakes | None) -> None:
        """Write the files that are asked for, and measure saved mistakes, which needs the predictions too."""
        predicted = None if outcome.evaluated is None else outcome.evaluated.predicted
        if mistakes is not None and predicted is not None:
            outcome.repeated = mistakes.repeated(predicted, self.dataset, self.split)
        if self.per_query is not None:
            outcome.of_queries.save(self.per_query)
        if self.trec is not None and predicted is not None:
            write_trec(predicted, self.dataset, self.split, self.trec)
        if self.save_mistakes is not None and predicted is not None:
            MajorMistakes.from_predictions(predicted, self.dataset, self.split).save(self.save_mistakes)
        outcome.written = [path for path in (self.per_query, self.trec, self.save_mistakes) if path is not None]

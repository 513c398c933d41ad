"""The library call: texts in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import Unpack

from xmc.arrays import Embeddings, Ids, Mask
from xmc.calibration.calibration import require_calibration
from xmc.calibration.decisions import Decision, Policy
from xmc.calibration.powerset import Region
from xmc.calibration.sets import LabelSet, Wanted
from xmc.config import TrainConfig
from xmc.data.images.ragged import Images
from xmc.encoders.base import Side
from xmc.encoders.dual import DualEncoder, unit_rows
from xmc.encoders.precision import Precision
from xmc.errors import InputError
from xmc.indexes.checks import require_count
from xmc.indexes.designs import design_of
from xmc.indexes.factory import index_version
from xmc.search.answers import Answer, AnswerParts
from xmc.search.calibrated import CalibratedAnswers, require_stages
from xmc.search.label_columns import LabelColumns, refuse_repeated
from xmc.search.labels import LabelVersion
from xmc.search.new_labels import scaled_beside_trained
from xmc.search.onnx import Judged, export_onnx
from xmc.search.options import SearchOptions, asked_for
from xmc.search.predicted_tables import predicted_table
from xmc.search.queries import Queries, strings_of_list
from xmc.search.run_metrics import RunMetrics
from xmc.search.sentence_transformers import export_encoder, read_encoder
from xmc.search.shared import SharedModel
from xmc.search.stages import RERANK, SearchRequest

__all__ = ["Retriever", "loaded"]

Found = tuple[npt.NDArray[np.object_], Embeddings]


class Retriever(SharedModel):
    """A trained model with its labels and their index: `predict` gives the best labels of each text.

    Label embeddings are the ones of training (with residual vectors); labels added later are encoded from their text.
    Any number of threads may predict while one changes the labels: a prediction sees all of a change or nothing of it, and
    never waits. Changes wait for each other.

    Pickled by reference to its run directory; see xmc.search.saved_model.SavedModel.
    """

    @classmethod
    def from_model(
        cls,
        model: DualEncoder,
        uids: Sequence[str],
        texts: Sequence[str],
        config: TrainConfig,
        index: str = "",
        embeddings: Embeddings | None = None,
        columns: LabelColumns | None = None,
        tuning_queries: Embeddings | None = None,
        trained: Mask | None = None,
    ) -> Retriever:
        """Index the labels of training, in their order; `index` overrides the configuration's.

        embeddings: of the labels, float32 [L, D], with residual vectors, where they are known; else they are embedded here.
        tuning_queries: embeddings [n, D] of queries as those to come, with which an index may be tuned, and labels from
            outside of training are scaled; kept with the run.
        trained: bool [L], which labels had queries in training; others are scaled down where they enter the best ten of queries
            more often than these. None for all.
        columns: further values of each label by name, for conditions; see `predict`.
        Raises InputError for embeddings and columns that do not fit.
        """
        model.eval()
        if embeddings is None:
            embeddings = model.embed_labels(texts, with_vectors=True)
        if tuning_queries is None:
            tuning_queries = np.zeros((0, embeddings.shape[1]), np.float32)
        origin = None
        if trained is not None:
            embeddings, origin = scaled_beside_trained(embeddings, trained, tuning_queries)
        held = index_version(index or config.index, embeddings, tuning_queries)
        labels = LabelVersion.from_lists(uids, texts, columns, held, origin)
        return cls(model, labels, config, RunMetrics(), tuning_queries)

    @classmethod
    def from_sentence_transformers(
        cls,
        directory: str | Path,
        label_texts: Sequence[str],
        label_uids: Sequence[str] | None = None,
        columns: LabelColumns | None = None,
        *,
        query_prompt: str | None = None,
        label_prompt: str | None = None,
        max_length: int | None = None,
        index: str = "auto",
        precision: Precision = "auto",
    ) -> Retriever:
        """Labels embedded by the model of a sentence-transformers directory and indexed: ready to predict, without training.

        label_uids: by default a label's uid is its text. columns: as of `from_model`.
        query_prompt, label_prompt: templates such as "query: {text}"; by default the directory's prompts "query" and
            "document" (or "passage", "corpus"), where it has them, else its default prompt.
        max_length, index, precision: as in the configuration. The retriever's `config`, which `save` writes, trains the model
            further.
        Raises ConfigError for a directory that cannot be used, InputError for a uid given twice.
        """
        texts = strings_of_list(label_texts, "label_texts")
        uids = texts if label_uids is None else strings_of_list(label_uids, "label_uids", "uid")
        refuse_repeated(uids)
        options = {"query_prompt": query_prompt, "label_prompt": label_prompt, "max_length": max_length}
        model, config = read_encoder(directory, texts, index, precision, **options)
        return cls.from_model(model, uids, texts, config, columns=columns)

    def predict(
        self,
        queries: Queries,
        k: int = 10,
        *,
        images: Images | None = None,
        **options: Unpack[SearchOptions],
    ) -> Found:
        """The k best labels of each query.

        queries: texts, as a list, an array or an Arrow column (a Series of pandas or Polars); or Query objects of several
            parts; or query embeddings [n, D] as from `embed_queries`.
        images: of each text the embeddings of its images, [m, I] or None, for a model that was trained with such.
        options: `include`, `exclude`, `where`, `rescore`, `diversity`, `passages`, `rerank` and `allow_empty`, see
            xmc.search.options.SearchOptions.

        Returns label uids [n, k'] (str) and scores [n, k'] (float32, cosine similarity), best first, k' = min(k, labels).
        Where fewer labels are allowed, a row ends with uid None and score -inf.
        Raises InputError for k < 0, one bare string, a set, an empty text without images, embeddings of another dimension, and
        filters or a condition that do not fit, naming the columns that there are.
        """
        answer = self._moment().answer(SearchRequest(k, **options), queries, images)
        return answer.uids, answer.scores

    def search(
        self,
        queries: Queries,
        k: int = 10,
        *,
        images: Images | None = None,
        **options: Unpack[SearchOptions],
    ) -> tuple[Ids, Embeddings]:
        """As `predict`, with the labels' int64 ids, -1 for none: for the labels of training, their row in the data set."""
        answer = self._moment().answer(SearchRequest(k, **options), queries, images)
        return answer.ids, answer.scores

    def answer(
        self,
        queries: Queries,
        k: int = 10,
        *,
        probabilities: bool = False,
        sets: Wanted | None = None,
        decide: Policy | None = None,
        explain: bool = False,
        images: Images | None = None,
        **options: Unpack[SearchOptions],
    ) -> Answer:
        """The k best labels of each query with all that is asked for beside them, as one object.

        probabilities, sets, decide: as of `predict_proba`, `predict_sets` and `decide`, of a calibrated run; then without
            options other than their defaults. explain: with what speaks for each label, see xmc.search.reasons. options: as of
            `predict`.
        Raises InputError as `predict` and `predict_sets`.
        """
        parts = AnswerParts(probabilities, sets, decide)
        if not parts:
            return self._moment().answer(SearchRequest(k, explain=explain, **options), queries, images)
        asked = asked_for(options)
        if asked:
            raise InputError(
                f"A run is calibrated for all of its labels; leave out {', '.join(asked)}, or {', '.join(parts.describe())}."
            )
        return self._calibrated(explain).answer(queries, k, parts, images)

    def predict_table(
        self,
        queries: Any,
        k: int = 10,
        *,
        text: str | None = None,
        uid: str | None = None,
        label_texts: bool = False,
        **options: Any,
    ) -> pa.Table:
        """As `answer`, as a pyarrow.Table with a row for each query.

        queries: as of `predict`, or a table of them: a DataFrame of pandas or Polars, a DuckDB relation, a pyarrow.Table, a
            datasets.Dataset. text, uid: its columns; by default those that the source of the training data had, where the
            table has them, else "text", and "uid" or none. options: as of `answer`.

        Columns: uid string, of a table that has uids; labels list<string>, scores list<float32>, best first; with `label_texts`
        texts list<string>; and what is asked for beside them, see xmc.search.answers.AnswerParts.
        Raises InputError as `answer`, and for columns that are named of what is no table; DataError for a table without such
        columns, or with a row that is no text.
        """
        training = self.metrics.training
        known = {} if training is None else training.columns
        return predicted_table(queries, lambda texts: self.answer(texts, k, **options), text, uid, known, label_texts)

    def predict_proba(self, queries: Queries, k: int = 10, *, images: Images | None = None) -> Found:
        """As `predict`, with the probability that a label is true in place of its score, float32 [n, k'].

        Labels come by score; probabilities also know how frequent a label is, and so may rise from left to right.
        Raises InputError as `predict`, for a retriever that is not calibrated (see xmc.calibrate), and for more labels than
        calibration looked at.
        """
        answer = self.answer(queries, k, probabilities=True, images=images)
        assert answer.probabilities is not None
        return answer.uids, answer.probabilities

    @overload
    def predict_sets(
        self, queries: Queries, *, significance: float, limit: int = 100, images: Images | None = None
    ) -> list[Region[str]]: ...

    @overload
    def predict_sets(
        self,
        queries: Queries,
        *,
        recall: float | None = None,
        false_positive_share: float | None = None,
        images: Images | None = None,
    ) -> list[LabelSet]: ...

    def predict_sets(
        self,
        queries: Queries,
        *,
        recall: float | None = None,
        false_positive_share: float | None = None,
        significance: float | None = None,
        limit: int = 100,
        images: Images | None = None,
    ) -> list[LabelSet] | list[Region[str]]:
        """Label sets with a guarantee, for queries that are exchangeable with those of calibration. Name one of:

        recall: a set of labels for each query that in the mean holds at least this share of a query's true labels, also of
            those that are not found at all. (1 - recall is the bound on the share of false negatives.)
        false_positive_share: a set of labels for each query, of whose members in the mean at most this share is not true;
            empty sets have none.
        significance: all label sets that are not refused: the true set is one of them with a probability of at least
            1 - significance; `limit` are listed.

        See xmc.calibration.risk.Thresholds and xmc.calibration.powerset.Powerset. Raises InputError as `predict_proba`, for
        shares that are not in (0, 1), and for shares that need more candidates or more calibration queries than there are.
        """
        calibrated = self._calibrated()
        return calibrated.sets(queries, Wanted(recall, false_positive_share, significance), limit, images)

    def decide(
        self, queries: Queries, automatic: float = 0.9, person: float = 0.1, *, images: Images | None = None
    ) -> list[Decision]:
        """Labels to be taken without asking, of probability p >= automatic, and to ask a person about, p >= person.

        What to expect of it: `retriever.calibration.histogram.expect(Policy(automatic, person))`, with
        xmc.calibration.decisions.Policy. Raises InputError as `predict_proba`, and for thresholds that do not fit.
        """
        return self._calibrated().decisions(queries, Policy(automatic, person), images)

    def p_values(
        self, queries: Queries, label_sets: Sequence[Sequence[str]], *, images: Images | None = None
    ) -> npt.NDArray[np.float64]:
        """The conformal p-value of one label set, given by uids, for each query, float64 [n]; see `predict_sets`.

        Raises InputError as `predict_proba`, for uids that are not there, and for more or fewer sets than queries.
        """
        return self._calibrated().p_values(queries, label_sets, images)

    def similar_labels(self, uids: Sequence[str], k: int = 10, **options: Unpack[SearchOptions]) -> Found:
        """The k labels most like each of some labels, itself left out; options and result as of `predict`.

        Raises InputError as `predict`, and for a uid that is not there.
        """
        answer = self._moment().similar(SearchRequest(k, **options), uids)
        return answer.uids, answer.scores

    def embed_queries(self, queries: Queries, images: Images | None = None) -> Embeddings:
        """Embeddings [n, D] of queries: unit vectors for texts where the model normalises, weighted sums for a Query.

        images: as in `predict`.
        """
        return self._moment().embed(queries, images)

    def exact(self) -> Retriever:
        """A retriever over the same model and labels that searches all of them exactly; changes of one do not show in it."""
        now = self._moment()
        labels = now.labels
        exact = labels.with_index(labels.index.with_design(design_of("exact", self.model.dimension)))
        exact = exact.remembering(None if labels.memory is None else labels.memory.exact())
        config = self.config.changed(index="exact")
        return Retriever(self.model, exact, config, self.metrics, self.tuning_queries, now.corridor.further)

    def cut(self, dimension: int, index: str = "") -> Retriever:
        """A retriever over the same labels with embeddings cut to their first numbers, by which all are indexed anew.

        For a run trained with `nested_dimensions`; scores of others suffer. index: overrides the configuration's. A
        re-ranker, which was fitted on other scores, is left out. Changes of one do not show in the other.
        Raises InputError for more dimensions than there are.
        """
        now = self._moment()
        labels = now.labels
        model = self.model.cut(require_count(dimension, "dimension"))
        embeddings = _cut(labels.embeddings, dimension, model.normalize)
        embeddings *= labels.scales[:, None] if model.normalize else 1
        queries = _cut(self.tuning_queries, dimension, model.normalize)
        held = index_version(index or self.config.index, embeddings, queries, 0, labels.index.devices)
        memory = None if labels.memory is None else labels.memory.cut(dimension, model.normalize)
        cut = labels.compacted(held).remembering(memory)
        stages = now.corridor.without(RERANK).further
        return Retriever(model, cut, self.config, self.metrics, queries, stages)

    def export_sentence_transformers(
        self, directory: str | Path, tower: Side | None = None, overwrite: bool = False
    ) -> None:
        """Write the encoder alone as a directory that `SentenceTransformer(directory)` loads.

        Its embeddings are equal to those of queries, and to those of labels without what was learned of each label itself
        (residual vectors, prototypes). tower: "query" or "label", where they have an encoder each; its prompt is the default.
        Raises ConfigError for what sentence-transformers cannot hold, InputError for a tower that must be named, StoreError as
        `save`.
        """
        export_encoder(self.model, self.labels, directory, tower, overwrite)

    def export_onnx(
        self, directory: str | Path, *, int8: bool = False, judged: Judged | None = None, overwrite: bool = False
    ) -> dict[str, Any]:
        """Write the encoder for onnxruntime, and return what onnx.json says of it; see xmc.search.onnx.export_onnx."""
        return export_onnx(self.model, self.labels, directory, int8, judged, overwrite)

    def _calibrated(self, explain: bool = False) -> CalibratedAnswers:
        now, calibration = self._moment(), require_calibration(self.calibration)
        require_stages(calibration, now.corridor.fingerprints)

        def search(queries: Any, images: Images | None, count: int) -> Answer:
            self._fit.check(calibration, now.labels)
            return now.answer(SearchRequest(count, explain=explain), queries, images)

        return CalibratedAnswers(calibration, search)


def loaded(retriever: Retriever | str | Path) -> Retriever:
    """The retriever, loaded where it is a run directory; InputError for anything else."""
    if isinstance(retriever, (str, Path)):
        return Retriever.load(retriever)
    if not isinstance(retriever, Retriever):
        raise InputError(f"A retriever must be a Retriever or a run directory, but is a {type(retriever).__name__}.")
    return retriever


def _cut(embeddings: Embeddings, dimension: int, normalize: bool) -> Embeddings:
    cut = np.array(embeddings[:, :dimension])  # a copy: they may be a memory map
    return unit_rows(cut) if normalize else cut

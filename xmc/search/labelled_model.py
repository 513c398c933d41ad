"""A trained model with its labels, which come, go and change, and their index."""

from __future__ import annotations

from collections.abc import Sequence

from xmc.arrays import Embeddings
from xmc.config import TrainConfig
from xmc.data.images.ragged import Images
from xmc.encoders.dual import DualEncoder
from xmc.errors import InputError
from xmc.indexes.factory import index_version
from xmc.indexes.label_index import LabelIndex
from xmc.search.changes import Added, Change, ColumnsSet, Removed, Updated, new_rows, updated_rows
from xmc.search.entry_rate import Scaling
from xmc.search.label_columns import LabelColumns
from xmc.search.label_edits import LabelEdits, LabelRecord, PreparedEdits, VectorsOf
from xmc.search.label_examples import Examples, LabelExamples, LabelSources
from xmc.search.label_vectors import ExampleSums
from xmc.search.labels import LabelVersion, require_same_labels
from xmc.search.new_labels import NewVectors, Score, Scoring, StoredQueries
from xmc.search.queries import images_of_texts, strings_of_list
from xmc.search.store import LabelStore

__all__ = ["LabelledModel"]


class LabelledModel:
    """A model and the store of its labels; the base of `Retriever`, which searches them.

    Changes wait for each other, and never make a search wait: what was read of `labels` stays as it is.
    """

    def __init__(
        self, model: DualEncoder, labels: LabelVersion, config: TrainConfig, tuning_queries: Embeddings
    ) -> None:
        """Raises InputError for labels whose index does not fit the model."""
        self.model = model.eval()
        self.config, self.tuning_queries = config, tuning_queries
        if labels.index.dimension != model.dimension:
            raise InputError(
                f"The index does not belong to this model: it is of dimension {labels.index.dimension}, the model of "
                f"dimension {model.dimension}."
            )
        self._store = LabelStore(labels)
        self._stored: StoredQueries | None = None

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._store.version)

    @property
    def labels(self) -> LabelVersion:
        """The labels as they are now; later changes make another version."""
        return self._store.version

    @property
    def index(self) -> LabelIndex:
        """The index of the labels as they are now, by their ids, to be read: changes of it do not show here."""
        labels = self._store.version
        return LabelIndex.from_version(labels.index, labels.all_ids.values)

    @property
    def embeddings(self) -> Embeddings:
        """Label embeddings float32 [L, D], in the order of `labels`; the index holds them."""
        return self._store.version.embeddings

    def texts(self, uids: Sequence[str]) -> list[str]:
        """The texts of labels; InputError names a uid that is not there."""
        labels = self.labels
        return labels.texts_of(labels.known_rows(uids))

    def add_labels(
        self,
        texts: Sequence[str | None] | None = None,
        uids: Sequence[str] | None = None,
        columns: LabelColumns | None = None,
        images: Images | None = None,
        *,
        examples: Examples | None = None,
        negatives: Examples | None = None,
        score: Score = "rate",
        expected_rate: float | None = None,
    ) -> tuple[Scaling, ...]:
        """Add labels by their texts, by examples of their queries, or by both; their uids are the texts unless given.

        columns: values by column name, one for each label; a column that is new is null for the labels before.
        images: as in `predict`, of each label.
        examples: for each label queries that it belongs to: a list of texts or Query objects, or embeddings [n, D]. Labels
            without texts need uids; a text may be None where there are examples. negatives: likewise, queries that a label
            does not belong to though they are like its own. See xmc.search.label_vectors.
        score: "rate" scales the labels together so that they enter the best ten of queries as often as trained labels do,
            which the run's stored queries tell (labels with examples twice as often); "raw" does not, and labels by text
            alone then displace others. expected_rate: the share of queries whose best ten a label enters, where it is known.

        Returns what the labels by text alone, and those with examples, were scaled by.
        Raises InputError for a uid already there or given twice, columns that do not fit, a label with neither text nor
        examples, and examples that are no queries of this model, or of a run that keeps no queries.
        """
        scoring = Scoring(score, expected_rate)
        given = LabelSources.read(texts, uids, examples, negatives, self.model.dimension, images is not None)
        with self._store.changing:
            new_rows(self._store.version, given.uids, given.texts, columns)  # refused before texts are encoded
            vectors = self._vectors(self._store.version, given, images, scoring)
            self._store.apply(Added(given.uids, given.texts, vectors.embeddings, columns, vectors.origin))
        return vectors.scalings

    def remove_labels(self, uids: Sequence[str]) -> None:
        """Remove labels; InputError names a uid that is not there."""
        self._store.apply(Removed(uids))

    def update_labels(
        self,
        texts: Sequence[str | None] | None = None,
        uids: Sequence[str] | None = None,
        images: Images | None = None,
        *,
        examples: Examples | None = None,
        negatives: Examples | None = None,
        score: Score = "rate",
        expected_rate: float | None = None,
    ) -> tuple[Scaling, ...]:
        """Make labels anew from these texts, images and examples alone; without `texts`, from the texts that they have.

        The labels come last in the order of `labels`; ids and columns stay. Other arguments, and the result, as of
        `add_labels`. InputError as there, and for a uid that is not there, or given twice.
        """
        scoring = Scoring(score, expected_rate)
        if uids is None:
            raise InputError("update_labels needs the uids of the labels; give uids=[...].")
        with self._store.changing:
            uids = strings_of_list(uids, "uids", "uid")
            kept = self.texts(uids) if texts is None else texts
            given = LabelSources.read(kept, uids, examples, negatives, self.model.dimension, images is not None)
            updated_rows(self._store.version, given.uids, given.texts)  # refused before texts are encoded
            vectors = self._vectors(self._store.version, given, images, scoring)
            self._store.apply(Updated(given.uids, given.texts, vectors.embeddings, vectors.origin))
        return vectors.scalings

    def change_labels(
        self,
        add: Sequence[LabelRecord] = (),
        update: Sequence[LabelRecord] = (),
        remove: Sequence[str] = (),
        *,
        score: Score = "rate",
        expected_rate: float | None = None,
    ) -> tuple[Scaling, ...]:
        """Remove, update and add labels as one change: all of it or nothing, and no search sees what is between.

        add, update: a dictionary for each label with its `uid`, `text`, `examples` and `negatives` (lists of queries, or
            embeddings [n, D]), and its columns by name. A label to add needs a text or examples; without a uid its text is
            one. One to update keeps the text and the columns that its dictionary does not name, and its vector where that
            names columns alone; given text, examples or negatives, its vector is made anew, as by `update_labels`.
        remove: uids. score, expected_rate, and the result, as of `add_labels`: labels that are updated are scaled together, and
            then those that are added.

        Raises ConflictError for a label to add that is there already, or one to update or remove that is not; InputError as
        `add_labels` and `set_columns`, and for a uid that is named twice.
        """
        edits = LabelEdits.read(add, update, remove, Scoring(score, expected_rate))
        with self._store.changing:
            prepared = self.prepare_edits(edits)
            self._store.apply(prepared.change)
        return prepared.scalings

    def prepare_edits(self, edits: LabelEdits, vectors: VectorsOf | None = None) -> PreparedEdits:
        """What `change_labels` applies, and `apply` takes, where labels are not changed in between.

        vectors: what labels are searched by, where it is known; by default it is made from texts and examples. Errors as there.
        """

        def made(labels: LabelVersion, given: LabelSources) -> NewVectors:
            return self._vectors(labels, given, None, edits.scoring)

        return edits.prepare(self._store.version, self.model.dimension, vectors or made)

    def apply(self, change: Change) -> None:
        """Make a change of labels or remembered queries; InputError for one that does not fit."""
        self._store.apply(change)

    def keep_no_changes(self) -> None:
        """Keep no list of changes any more, which `save` would make again where another process has saved the run meanwhile."""
        self._store.keep_no_changes()

    def set_columns(self, columns: LabelColumns) -> None:
        """Set columns of the label table, joined by its own column `uid`; other labels keep their values, or have null.

        columns: a table, or values by name. InputError for one without `uid`, a uid that is not there or given twice,
        another column called id, uid or text, and values of another type than those there.
        """
        self._store.apply(ColumnsSet.from_columns(columns))

    def use_index(self, index: LabelIndex) -> None:
        """Search by another index over the same labels; InputError, with both sizes, where it holds others.

        index: with the ids of `labels`. What it holds now counts; its later changes do not show here. The configuration's
            `index` becomes the name of its design.
        """
        snapshot = index.snapshot().compacted()
        with self._store.changing:
            labels = self._store.version
            require_same_labels(labels, snapshot.ids, snapshot.held)
            self._store.use(labels.compacted(snapshot.held))
            self.config = self.config.changed(index=snapshot.held.design.name)

    def reindex(self, design: str, rescore: int = 0) -> None:
        """Search by a new index of a design over the same labels; see TrainConfig.index, and LabelIndex for `rescore`."""
        with self._store.changing:
            labels = self._store.version
            held = index_version(design, labels.embeddings, self.tuning_queries, rescore, labels.index.devices)
            self._store.use(labels.compacted(held))
            self.config = self.config.changed(index=design)

    def _vectors(
        self, labels: LabelVersion, given: LabelSources, images: Images | None, scoring: Scoring
    ) -> NewVectors:
        """What labels from outside of training are searched by, beside others."""
        model = self.model
        if self._stored is None or self._stored.queries is not self.tuning_queries:
            self._stored = StoredQueries(self.tuning_queries)
        known = images_of_texts(images, len(given.texts), model.label_encoder)
        texts = model.embed_labels(given.texts, known)

        def sums(examples: LabelExamples) -> ExampleSums:
            return examples.sums(model, labels.vectors_of)

        against = None if given.negatives is None else sums(given.negatives)
        return self._stored.vectors(labels, given.uids, texts, given.with_text, sums(given.examples), against, scoring)

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
from xmc.search.changes import Added, ColumnsSet, Removed, Updated, new_rows, updated_rows
from xmc.search.label_columns import LabelColumns
from xmc.search.labels import LabelVersion, require_same_labels
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
        texts: Sequence[str],
        uids: Sequence[str] | None = None,
        columns: LabelColumns | None = None,
        images: Images | None = None,
    ) -> None:
        """Add labels by their text; their uid is the text itself unless given.

        columns: values by column name, one for each label; a column that is new is null for the labels before.
        images: as in `predict`, of each label.
        Raises InputError for a uid already there or given twice, and for columns that do not fit.
        """
        texts = strings_of_list(texts)
        uids = texts if uids is None else strings_of_list(uids, "uids", "uid")
        with self._store.changing:
            new_rows(self._store.version, uids, texts, columns)  # refused before texts are encoded
            given = images_of_texts(images, len(texts), self.model.label_encoder)
            self._store.apply(Added(uids, texts, self.model.embed_labels(texts, given), columns))

    def remove_labels(self, uids: Sequence[str]) -> None:
        """Remove labels; InputError names a uid that is not there."""
        self._store.apply(Removed(uids))

    def update_labels(self, texts: Sequence[str], uids: Sequence[str], images: Images | None = None) -> None:
        """Give labels other texts, and encode them anew from these (and their images, as in `predict`) alone.

        The labels come last in the order of `labels`; ids and columns stay. InputError names a uid that is not there, or given
        twice.
        """
        texts = strings_of_list(texts)
        with self._store.changing:
            updated_rows(self._store.version, uids, texts)  # refused before texts are encoded
            given = images_of_texts(images, len(texts), self.model.label_encoder)
            self._store.apply(Updated(uids, texts, self.model.embed_labels(texts, given)))

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

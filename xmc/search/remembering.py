"""A saved model with a memory of judged queries, which grows while it serves."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from xmc.data.images.ragged import Images
from xmc.errors import InputError
from xmc.search.changes import Remembered, remembered_ids
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.queries import images_of_texts, query_list
from xmc.search.saved_model import SavedModel
from xmc.search.stages import RERANK, Stage

__all__ = ["RememberingModel"]

logger = logging.getLogger("xmc.search")


class RememberingModel(SavedModel):
    """A saved model whose searches recall judged queries, see xmc.search.memory; the base of `Retriever`, which searches."""

    @property
    def memory(self) -> QueryMemory | None:
        """The remembered queries as they are now; None where searches recall none."""
        return self._store.version.memory

    def use_memory(self, memory: QueryMemory | None, stage: RecallQueries | None = None) -> None:
        """Search with these remembered queries by this stage, or without memory; `xmc.fit_memory` makes both.

        A re-ranker that was fitted without them is left out, with a warning. InputError where the two are not of one encoder,
        or of another dimension than the run's.
        """
        if (memory is None) != (stage is None):
            raise InputError("A memory goes with the stage that recalls it; give both, or None for no memory.")
        with self._store.changing:
            further = [kept for kept in self.stages if kept.name not in (RecallQueries.name, RERANK)]
            if len(further) < len([kept for kept in self.stages if kept.name != RecallQueries.name]):
                logger.warning("the re-ranker was fitted with other votes, and is left out; fit it again")
            if memory is not None and stage is not None:
                _require_fit(memory, stage, self.model.dimension)
            if len(further) < len(self.stages):  # so that no search sees a stage with another memory than its own
                self.use_stages(further)
            self._store.use(self._store.version.remembering(memory))
            if stage is not None:
                self.use_stages([stage, *further])

    def use_reranker(self, stage: Stage, beside: Sequence[Stage]) -> None:
        """Search with a re-ranker, in place of one that is there; `xmc.fit_reranker` makes it.

        beside: the other stages that it was fitted with. InputError where the retriever has others by now.
        """
        with self._store.changing:
            others = [kept for kept in self.stages if kept.name != RERANK]
            if [id(kept) for kept in others] != [id(kept) for kept in beside if kept.name != RERANK]:
                raise InputError(
                    "The stages of the retriever were exchanged while the re-ranker was fitted on the scores of those before; "
                    "fit it again."
                )
            self.use_stages([*others, stage])

    def remember(self, texts: Sequence[str], labels: Sequence[Sequence[str]], images: Images | None = None) -> None:
        """Add judged queries to the memory: the labels of each, by uid, vote for queries like it from now on.

        images: as in `predict`, of each text. Raises InputError for a run without a memory, a uid that is not there, a text
        that is empty, and another number of lists than of texts.
        """
        with self._store.changing:
            self._store.apply(self.prepare_remembered(texts, labels, images))

    def prepare_remembered(
        self, texts: Sequence[str], labels: Sequence[Sequence[str]], images: Images | None = None
    ) -> Remembered:
        """What `remember` applies, and `apply` takes, where labels are not changed in between. Errors as there."""
        listed = query_list(texts)
        given = [text for text in listed if isinstance(text, str)]
        if len(given) < len(listed):
            raise InputError("remember takes texts, not Query objects: a remembered query is one text with its labels.")
        remembered_ids(self._store.version, given, labels)  # refused before texts are encoded
        stage = next((stage for stage in self.stages if isinstance(stage, RecallQueries)), None)
        encoder = self.model if stage is None or stage.encoder is None else stage.encoder
        of_texts = images_of_texts(images, len(given), encoder.query_encoder)
        return Remembered(encoder.embed_queries(given, of_texts), given, labels)


def _require_fit(memory: QueryMemory, stage: RecallQueries, dimension: int) -> None:
    stage.require_memory(memory)
    expected = dimension if stage.encoder is None else stage.encoder.dimension
    if memory.held.dimension != expected:
        raise InputError(
            f"The memory is of another run: its vectors are of dimension {memory.held.dimension}, those of its encoder of "
            f"dimension {expected}. Fit a memory with xmc.fit_memory."
        )

"""Queries of any kind to embeddings by a run's model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from xmc.arrays import Embeddings
from xmc.data.images.ragged import Images
from xmc.encoders.dual import DualEncoder, unit_rows
from xmc.errors import InputError
from xmc.search.composed import ComposedQueries, Layout
from xmc.search.queries import Query, embed, images_of_texts, query_list
from xmc.search.state import SearchState

__all__ = ["encoded"]


@torch.no_grad()
def encoded(model: DualEncoder, state: SearchState) -> SearchState:
    """The state with the embeddings of its queries, and with the composed ones among them.

    Raises InputError for queries of another kind, images that do not fit, and passages of embeddings or of texts with images.
    """
    queries, images = state.queries, state.images
    if state.features is not None:
        return replace(state, embeddings=model.queries(state.features).float().cpu().numpy())
    embedded = isinstance(queries, np.ndarray) and queries.dtype.kind not in "OUST"
    if state.request.passages is not None and (embedded or images is not None):
        raise InputError(
            "Texts alone are cut into passages; leave passages out for embeddings, and for texts with images."
        )
    if images is not None:
        return replace(state, embeddings=_with_images(model, images, None if embedded else queries))
    if embedded:
        return replace(state, embeddings=queries)
    listed = query_list(queries, state.request.allow_empty)
    if state.request.passages is not None:
        options, encoder = state.request.passages, model.query_encoder
        listed = [Query.of_text(query, options, encoder) if isinstance(query, str) else query for query in listed]
        state = replace(state, queries=listed)
    return _composed(model, state, Layout.from_queries(listed))


def _with_images(model: DualEncoder, images: Images, queries: Any) -> Embeddings:
    """Of texts with images. queries: None for embeddings, which have none."""
    listed = [] if queries is None else query_list(queries, allow_empty=True)  # an image says something
    texts = [query for query in listed if isinstance(query, str)]
    if queries is None or len(texts) < len(listed):
        raise InputError("images go with a list of texts; Query objects and embeddings have none.")
    return model.embed_queries(texts, images_of_texts(images, len(texts), model.query_encoder))


def _composed(model: DualEncoder, state: SearchState, layout: Layout) -> SearchState:
    """With what is listed of a batch embedded, in one call."""
    embeddings = embed(layout.listed, model.embed_queries, state.labels.vectors_of, model.dimension, allow_empty=True)
    if not layout.composed:
        return replace(state, embeddings=embeddings)
    composed = ComposedQueries(embeddings, layout.composed, float(model.temperature))
    unit = unit_rows if model.normalize else np.asarray
    return replace(state, embeddings=layout.embeddings(embeddings, unit), composed=composed)

"""A static run as a predictor that loads neither torch nor numba nor transformers: numpy, and pyarrow for what is read."""

from xmc.light.retriever import LightRetriever

__all__ = ["LightRetriever"]

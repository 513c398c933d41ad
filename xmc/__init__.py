"""Extreme multi-label classification as retrieval: train dual encoders, index label embeddings, search them."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from xmc.namesake import require_no_namesake
from xmc.version import __version__ as __version__

if TYPE_CHECKING:
    from xmc.config import TrainConfig
    from xmc.data.dataset import Dataset
    from xmc.errors import XMCError
    from xmc.evaluation.calibrate import calibrate
    from xmc.evaluation.evaluate import evaluate
    from xmc.evaluation.fit_reranker import fit_reranker
    from xmc.evaluation.memory import fit_memory
    from xmc.interop.scikit_learn import XMCClassifier as XMCClassifier  # not in __all__: it needs scikit-learn
    from xmc.search.passages import PassageOptions
    from xmc.search.queries import Query
    from xmc.search.retriever import Retriever
    from xmc.storage.signatures import sign, verify
    from xmc.training.trainer import train

__all__ = [
    "Dataset",
    "PassageOptions",
    "Query",
    "Retriever",
    "TrainConfig",
    "XMCError",
    "calibrate",
    "evaluate",
    "fit_memory",
    "fit_reranker",
    "sign",
    "train",
    "verify",
]

# An editable install serves xmc.kernels, a namespace package inside a regular one, through setuptools' own path entry;
# Python looks for it on the parent's path only. In a wheel there is no such entry and nothing is added.
_EDITABLE = ("__editable__.xmc_retrieval-", "__editable__.xmc-")  # the second: what was installed before 0.2.0
__path__ += [entry for entry in sys.path if entry.startswith(_EDITABLE)]

require_no_namesake()

_HOME = {
    "Dataset": "xmc.data.dataset",
    "PassageOptions": "xmc.search.passages",
    "Query": "xmc.search.queries",
    "Retriever": "xmc.search.retriever",
    "TrainConfig": "xmc.config",
    "XMCClassifier": "xmc.interop.scikit_learn",
    "XMCError": "xmc.errors",
    "calibrate": "xmc.evaluation.calibrate",
    "evaluate": "xmc.evaluation.evaluate",
    "fit_reranker": "xmc.evaluation.fit_reranker",
    "fit_memory": "xmc.evaluation.memory",
    "sign": "xmc.storage.signatures",
    "train": "xmc.training.trainer",
    "verify": "xmc.storage.signatures",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import xmc` loads neither torch nor pyarrow."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'xmc' has no attribute {name!r}")

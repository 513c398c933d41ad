"""A model and its labels as a repository of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Self, Unpack

from xmc.encoders.precision import Precision
from xmc.search.hub import PushOptions, pull, push
from xmc.search.model_card import CardResults
from xmc.search.remembering import RememberingModel

__all__ = ["SharedModel"]


class SharedModel(RememberingModel):
    """A saved model that remembers, and is shared by the Hub; the base of `Retriever`, which searches."""

    def push_to_hub(self, repo: str, results: CardResults | None = None, **options: Unpack[PushOptions]) -> str:
        """Upload the run to the Hugging Face Hub, with a model card; returns the address of the commit.

        repo: owner/name. results: what was measured, for the card; see xmc.report.card_results. options: `private`, `revision`
            and `token`. Adapters are merged into their backbone; an index that FAISS wrote is left out, and exact search
            takes its place. Labels may change meanwhile.
        Raises InputError for a name that no repository can have, StoreError where the Hub refuses, with its reason.
        """
        with self._store.changing:
            run = self._run(self.model)
        return push(run, repo, results, **options)

    @classmethod
    def from_hub(
        cls,
        repo: str,
        revision: str | None = None,
        *,
        device: str | Sequence[str] = "auto",
        precision: Precision | None = None,
        token: str | None = None,
    ) -> Self:
        """Download a run that `push_to_hub` has uploaded, and load it; every file is verified.

        Files stay in the Hub's cache (HF_HOME). revision: a branch, a tag or the hash of a commit. device, precision: as of
        `load`.
        Raises InputError for a name that no repository can have; StoreError where there is no such repository or revision, and
        for a file that is not safetensors, Arrow, Parquet or text, or does not fit its checksum.
        """
        return cls.load(pull(repo, revision, token=token), device, precision)

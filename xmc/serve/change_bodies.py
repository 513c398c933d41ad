"""The bodies of requests that change labels, or judge queries."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from xmc.search.label_edits import LabelEdits
from xmc.search.new_labels import Scoring
from xmc.serve.bodies import Body, require_length, require_texts
from xmc.serve.failures import Refusal
from xmc.serve.settings import Limits

__all__ = ["LabelBody", "LabelsBody", "RememberBody"]


class LabelBody(Body):
    """A label; further fields are its columns."""

    model_config = ConfigDict(extra="allow")

    uid: str | None = Field(None, description="What names it; of a label to add, by default its text.")
    text: str | None = Field(None, description="What it is called.")
    examples: list[str] | None = Field(None, description="Queries that it belongs to.")
    negatives: list[str] | None = Field(None, description="Queries that it does not belong to, though like its own.")

    def record(self) -> dict[str, Any]:
        """Its fields that were given, by name."""
        return self.model_dump(exclude_unset=True)

    def texts(self) -> list[str]:
        """All texts in it."""
        return [text for text in (self.uid, self.text, *(self.examples or ()), *(self.negatives or ())) if text]


class LabelsBody(Body):
    """POST /labels: one change, all of it or nothing."""

    add: list[LabelBody] = Field([], description="Labels that are not there yet, by text, examples or both.")
    update: list[LabelBody] = Field([], description="Labels that are there; what is not given stays.")
    remove: list[str] = Field([], description="Uids of labels that go.")
    score: Literal["rate", "raw"] = Field("rate", description="How new scores are scaled; raw: not at all.")
    expected_rate: float | None = Field(
        None, gt=0, le=1, description="Share of queries whose best ten a label enters, where it is known."
    )

    def edits(self, limits: Limits) -> LabelEdits:
        """The change. Refusal for a text beyond the limits, and for none; InputError for labels that cannot be meant."""
        for name in ("add", "update"):
            for place, label in enumerate(getattr(self, name)):
                for text in label.texts():
                    require_length(text, f"A text of {name}[{place}]", limits)
        for place, uid in enumerate(self.remove):
            require_length(uid, f"remove[{place}]", limits)
        if not (self.add or self.update or self.remove):
            raise Refusal(422, "Nothing is to be changed; give labels to add, to update or to remove.")
        added, updated = ([label.record() for label in labels] for labels in (self.add, self.update))
        return LabelEdits.read(added, updated, self.remove, Scoring(self.score, self.expected_rate))


class RememberBody(Body):
    """POST /remember: judged queries, which vote for their labels from now on."""

    texts: list[str] = Field(description="Queries.")
    labels: list[list[str]] = Field(description="For each query the uids of its true labels.")

    def require(self, limits: Limits) -> None:
        """Raise Refusal for texts that are empty, or beyond the limits."""
        require_texts(self.texts, limits)
        if not self.texts:
            raise Refusal(422, "Nothing is to be remembered; give texts with their labels.")

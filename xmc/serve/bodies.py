"""The bodies of requests: what may be asked, checked field by field; from these models comes the OpenAPI description too."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xmc.registry import did_you_mean
from xmc.serve.failures import Refusal
from xmc.serve.settings import Limits

__all__ = ["Body", "EmbedBody", "PredictBody", "read_body", "require_length", "require_texts"]

SHOWN = 60
"""Number of characters of a wrong value that a message shows."""
Share = Annotated[float, Field(gt=0, lt=1)]


class Body(BaseModel):
    """A body: no field is unknown, and no value is taken for one of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class PassagesBody(Body):
    """How long texts are cut into passages."""

    tokens: int = Field(64, ge=1, description="Length of a passage, in tokens.")
    stride: int | None = Field(None, ge=1, description="Tokens from one passage to the next.")
    combine: Literal["logmeanexp", "max", "sum"] = Field(
        "logmeanexp", description="How scores of passages are combined."
    )
    temperature: float = Field(0.1, gt=0, description="Of logmeanexp.")


class SetsBody(Body):
    """What label sets are to guarantee: one of the three."""

    recall: Share | None = Field(None, description="The mean share of a query's true labels that its set holds.")
    false_positive_share: Share | None = Field(None, description="The mean share of labels in a set that is not true.")
    significance: Share | None = Field(None, description="All sets of labels that are not refused at this level.")


class DecideBody(Body):
    """Thresholds of probability, whole thousandths."""

    automatic: float = Field(
        0.9, ge=0, le=1, description="Labels that are at least so probable are taken without asking."
    )
    person: float = Field(0.1, ge=0, le=1, description="A person is asked about labels that are at least so probable.")


class EmbedBody(Body):
    """POST /embed."""

    texts: list[str] = Field(description="What to embed.")

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.texts)

    def require(self, limits: Limits) -> None:
        """Raise Refusal for texts that are empty or beyond the limits."""
        require_texts(self.texts, limits)


class PredictBody(Body):
    """POST /predict."""

    texts: list[str] | None = Field(None, description="What to find labels for.")
    vectors: list[list[float]] | None = Field(None, description="Query embeddings, in place of texts.")
    k: int = Field(10, ge=1, description="Number of labels for each query.")
    where: str | None = Field(None, description="A condition over the columns of labels, such as `price < 10`.")
    include: list[str] | None = Field(None, description="Uids of labels that alone may be returned.")
    exclude: list[str] | None = Field(None, description="Uids of labels that are never returned.")
    rescore: int | None = Field(None, ge=0, description="Candidates, in multiples of k, ordered by exact scores.")
    diversity: float = Field(0.0, ge=0, le=1, description="From 0, the best labels, to 1, the least alike.")
    passages: PassagesBody | None = Field(None, description="Cut each text into passages, and combine their scores.")
    rerank: bool | None = Field(None, description="Demand the run's re-ranker, or leave it out.")
    probabilities: bool = Field(False, description="Calibrated run: the probability of each label too.")
    sets: SetsBody | None = Field(None, description="Calibrated run: label sets with a guarantee too.")
    decide: DecideBody | None = Field(None, description="Calibrated run: what to do with each label too.")
    explain: bool = Field(False, description="What speaks for each label too.")

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.texts if self.texts is not None else self.vectors or ())

    def require(self, limits: Limits) -> None:
        """Raise Refusal for queries that are missing, given twice or empty, and for what is beyond the limits."""
        if (self.texts is None) == (self.vectors is None):
            raise Refusal(422, "Give either texts, a list of strings, or vectors, a list of embeddings.")
        if self.texts is not None:
            require_texts(self.texts, limits)
        else:
            _require_number(self.vectors, "vectors", limits)
        if self.k > limits.k:
            raise Refusal(422, f"k may be at most {limits.k:,}, but is {self.k:,}; ask for fewer labels.")
        if self.rescore and self.rescore * self.k > 10 * limits.k:
            raise Refusal(
                422,
                f"rescore times k may be at most {10 * limits.k:,}, but is {self.rescore * self.k:,}; lower one of them.",
            )
        if self.passages is not None and self.texts is not None:
            stride = self.passages.stride or max(1, 3 * self.passages.tokens // 4)
            most = sum(len(text) // (2 * stride) + 1 for text in self.texts)
            if most > limits.passages:
                raise Refusal(
                    422,
                    f"The texts may have up to {most:,} passages, and a request may have {limits.passages:,}; let "
                    f"passages be longer, or send fewer texts.",
                )


def require_texts(texts: list[str], limits: Limits) -> None:
    """Raise Refusal for too many texts, and with its place for one that is empty or too long."""
    _require_number(texts, "texts", limits)
    for place, text in enumerate(texts):
        if not text or text.isspace():
            raise Refusal(422, f"texts[{place}] is empty, and an empty text has no labels; leave it out.")
        require_length(text, f"texts[{place}]", limits)


def require_length(text: str, place: str, limits: Limits) -> None:
    """Raise Refusal for a text that is too long. place: where it stands, or what it is of, in words."""
    if 4 * len(text) > limits.text_bytes and len(text.encode()) > limits.text_bytes:
        raise Refusal(
            422, f"{place} has {len(text.encode()):,} bytes, and a text may have {limits.text_bytes:,}; shorten it."
        )


def _require_number(queries: Any, name: str, limits: Limits) -> None:
    if len(queries) > limits.texts:
        raise Refusal(422, f"A request may hold {limits.texts:,} {name}, but has {len(queries):,}; send them in parts.")


AnyBody = TypeVar("AnyBody", bound=Body)


def read_body(kind: type[AnyBody], content_type: str, body: bytes) -> AnyBody:
    """A request's body as a model. Refusal (400, 415, 422), with the place of a mistake and what would be right."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        given = f"is {content_type[:SHOWN]!r}" if content_type else "is missing"
        raise Refusal(415, f"The content type must be application/json, but {given}.")
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"The body is not JSON in UTF-8: {error}.") from error
    if not isinstance(values, dict):
        raise Refusal(422, f"The body must be a JSON object, but is {_shown(values)}.")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise Refusal(422, _sentence(error, kind)) from error


def _sentence(error: ValidationError, kind: type[Body]) -> str:
    """The first mistake that pydantic found, unknown fields before others."""
    details = error.errors(include_url=False)
    first = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"]).lstrip(".")[:SHOWN]
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, first["loc"])
        near = did_you_mean(str(first["loc"][-1])[:SHOWN], known)
        return f"The field {place!r} is unknown.{near} Known are {', '.join(known)}."
    wanted = first["msg"].removeprefix("Input should be ").rstrip(".")
    return f"{place} must be {wanted}, but is {_shown(first['input'])}."


def _fields_at(kind: type[Body], place: tuple[int | str, ...]) -> list[str]:
    """The names of the fields beside a place in a body."""
    for key in place[:-1]:
        parts = get_args(kind.model_fields[str(key)].annotation)
        kind = next(part for part in parts if isinstance(part, type) and issubclass(part, Body))
    return list(kind.model_fields)


def _shown(value: Any) -> str:
    """A value as a message shows it: its beginning."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)):
        noun = "an object" if isinstance(value, dict) else "a list"
        return f"{noun} of {len(value):,}"
    text = orjson.dumps(value).decode() if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

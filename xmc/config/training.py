"""The configuration of a training: its sections and what spans them, how it is read, changed and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field, model_validator

from xmc.config.checkpoint import CheckpointConfig
from xmc.config.data import DataConfig
from xmc.config.encoders import ENCODER_SECTIONS, EncoderConfig, StaticConfig
from xmc.config.kinds import Family, default_kinds
from xmc.config.label_vectors import LABEL_VECTOR_SECTIONS, LabelVectorsConfig, ResidualConfig
from xmc.config.negatives import NEGATIVES_SECTIONS, AllConfig, NegativesConfig
from xmc.config.objective import ObjectiveConfig
from xmc.config.optimizer import OptimizerConfig
from xmc.config.overrides import Values, parse_override
from xmc.config.section import Section, plain_values
from xmc.config.shipped import config_file
from xmc.config.supervision import SupervisionConfig
from xmc.config.validation import ValidationConfig
from xmc.config.yaml_values import LONGEST_DOCUMENT, read_yaml
from xmc.errors import ConfigError, boundary
from xmc.storage.small_files import read_text

__all__ = ["TrainConfig"]

N = TypeVar("N", bound=NegativesConfig)
logger = logging.getLogger("xmc.config")


def _listed(value: Any) -> Any:
    """One section, or its kind, stands for a list of one."""
    return (value,) if isinstance(value, (str, Mapping, Section)) else value


class TrainConfig(Section):
    """Everything that `xmc.train` can be told. The defaults are what `xmc quickstart` runs.

    A section by kind may be given as the name of its kind: `TrainConfig(encoder="static", negatives=["shortlist", "sampled"])`.
    """

    encoder: Annotated[EncoderConfig, Family(ENCODER_SECTIONS, "static")] = StaticConfig()
    """What encodes texts: "static" or "transformer", with the keys of that kind."""
    share_towers: bool = True
    """One encoder for queries and labels, or one each."""
    normalize: bool = True
    """Embeddings have unit length, so that scores are cosines; inner products otherwise."""
    label_vectors: Annotated[LabelVectorsConfig, Family(LABEL_VECTOR_SECTIONS, "residual")] = ResidualConfig()
    """What a label has besides its text: "residual", a learned vector added to each encoded label; "prototypes", which combine
    the text with a vector of its cluster and its queries' centroid; or "none"."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What training minimises."""
    negatives: Annotated[
        tuple[Annotated[NegativesConfig, Family(NEGATIVES_SECTIONS)], ...], BeforeValidator(_listed)
    ] = (AllConfig(),)
    """Which labels a step scores, besides its queries' positives: "all"; "bank", all labels too, most of them as they were
    encoded some steps ago; or one or several of "in-batch" (no others), "sampled" (drawn uniformly), "shortlist" (hard ones,
    mined) and "clusters" (no others, but batches of similar queries)."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How parameters are updated."""
    data: DataConfig = DataConfig()
    """What is done to texts in training."""
    supervision: SupervisionConfig = SupervisionConfig()
    """What is taken for true where labels are missing, wrong, partial, counted or voted on."""
    epochs: int = Field(default=9, ge=1)
    """Passes over the training queries."""
    batch_size: int = Field(default=512, ge=1)
    """Queries of a step: an epoch is cut into as many equal batches as hold at least this number of queries each."""
    validation: ValidationConfig = ValidationConfig()
    """Training queries held out and evaluated, for early stopping."""
    calibration: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training queries that are kept aside, for `xmc calibrate`; drawn by `seed`. 0 for none."""
    memory: str = "none"
    """Training queries that searches of the finished run recall, whose labels get votes: "own", by vectors of the run's own
    encoder; a directory of another encoder, of sentence-transformers or a run; "none"; or "auto", own where it gains on queries
    held out for validation, or on half of those for calibration. How they vote is fitted on such queries."""
    rerank: Literal["none", "auto", "trees", "logistic"] = "none"
    """Re-ranker of the finished run, fitted on the queries held out for validation, or on half of those for calibration:
    boosted "trees", "logistic" regression, "none", or "auto", trees where they gain on such queries."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints while training goes."""
    index: str = "auto"
    """Index of the finished run: "auto", exact search below 20,000 labels; a scan of 4-bit codes, or exact search where that
    would find less than 99% of the ten best, below 100,000; and above, the design that is fastest as measured at that
    recall (tuning takes ten minutes at most); "exact"; a storage of xmc.indexes.designs, such as "int8"; or a
    FAISS factory string such as "HNSW32" or "IVF256,Flat"."""
    seed: int = 0
    """Seed of initialisation, batch order, dropout and sampling."""
    device: str = "auto"
    """Device that trains: "cpu", "cuda", "cuda:1", or "auto"."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What transformers compute in: "bfloat16", with weights, gradients and optimizer in float32; "float32"; or "auto",
    bfloat16 on GPUs and processors that have instructions for it."""
    gradient_cache: bool | Literal["auto"] = "auto"
    """Encode twice, without and then with gradient, so that memory does not grow with the batch; "auto": only where the
    activations of a step do not fit into memory."""
    tile_bytes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Largest size of a buffer of scores, in bytes; "auto": 64 MiB on a CPU, on a GPU an eighth of the free memory, as a power
    of two between 64 MiB and 1 GiB."""
    keep_bytes: int = Field(default=0, ge=0)
    """Memory of a GPU, in bytes, to keep weights of scores from the forward to the backward pass, which saves their product
    there; by the bytes moved it pays for embeddings of more than 1,000 dimensions."""
    token_cache: str | None = "auto"
    """A directory where the texts' tokens are kept between runs, by content; null for none. "auto": for a transformer and
    5,000 texts or more the folder `tokens` of the user's cache (XMC_CACHE, or ~/.cache/xmc), of 8 GiB at most."""
    tensorboard: bool = False
    """Write the log for TensorBoard too, into the run's directory `tensorboard`."""

    def __init__(self, **values: Any) -> None:
        """Raises ConfigError for a value that does not fit."""
        super().__init__(**values)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        self._check_negatives()
        loss = self.objective.loss
        if self.label_vectors.kind == "prototypes" and loss.over_all_labels:
            raise ConfigError(
                f"The loss {loss.kind} ranks all labels of a query; prototypes also rank queries for a label. Set "
                f"objective.loss to triplet_margin, softmax or decoupled_softmax."
            )
        if self.encoder.only_on_cpu and self.device not in ("auto", "cpu"):
            raise ConfigError(
                f"The {self.encoder.kind} encoder runs on the CPU; device must be auto or cpu, not {self.device!r}."
            )
        if self.rerank in ("trees", "logistic") and not self.validation.is_on and not self.calibration:
            raise ConfigError(
                f"rerank {self.rerank} is fitted on queries that training keeps aside; set validation.share or calibration to "
                f"0.1, say, or name a validation.split."
            )
        if self.data.bags.is_on and any(section.kind == "sampled" for section in self.negatives):
            raise ConfigError(
                "Sampled negatives are corrected by how often a label is a positive, which data.bags changes as training goes; "
                "choose other negatives, such as all."
            )
        if self.supervision.estimator != "none" and self.data.bags.is_on:
            raise ConfigError("supervision.estimator judges whole texts; leave it out, or data.bags.")
        if self.encoder.is_split and self.gradient_cache is False:
            raise ConfigError("encoder.shard needs gradient_cache; set it to auto or true.")
        return self

    def _check_negatives(self) -> None:
        kinds = [section.kind for section in self.negatives]
        if not kinds:
            raise ConfigError(
                "negatives must name at least one kind; in-batch has no others than the batch's positives."
            )
        scores_all = [section.kind for section in self.negatives if section.scores_all]
        if len(set(kinds)) < len(kinds):
            raise ConfigError(f"negatives {self.negatives_named!r} names one kind twice.")
        if len(kinds) > 1 and scores_all:
            raise ConfigError(f"negatives {scores_all[0]} scores every label; it cannot be joined with others.")
        loss = self.objective.loss
        if loss.over_all_labels and not scores_all:
            raise ConfigError(
                f"The loss {loss.kind} is defined over all labels; set negatives to all or bank, not "
                f"{self.negatives_named}."
            )
        if self.objective.in_batch_positives and scores_all:
            raise ConfigError(
                f"objective.in_batch_positives is for negatives that score some labels; leave "
                f"objective.positives_per_query unset to have all positives with negatives {self.negatives_named}."
            )

    @property
    def encoder_learning_rate(self) -> float:
        """`optimizer.learning_rate.encoder`, or the encoder's default."""
        rate = self.optimizer.learning_rate.encoder
        return self.encoder.default_learning_rate if rate is None else rate

    @property
    def negatives_named(self) -> str:
        """The kinds of negatives, joined by "+" for messages and tables."""
        return "+".join(section.kind for section in self.negatives)

    def negatives_of(self, kind: type[N]) -> N:
        """The section of a class among the negatives, such as `BankConfig`; ConfigError where it is not among them."""
        for section in self.negatives:
            if isinstance(section, kind):
                return section
        raise ConfigError(
            f"negatives are {self.negatives_named}, without a section {kind.__name__}; choose its kind too."
        )

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
        """Read a YAML file, then apply overrides of the form `key=value`, as in `encoder.dimension=512`.

        path: of a file, or the name of a shipped configuration, such as "static"; see xmc.config.shipped.
        Raises ConfigError for a file that cannot be read, an unknown key (with the nearest known one) or a wrong type. Keys of
        older versions are read, and a warning in the log names their new ones.
        """
        path = config_file(path)
        text = read_text(path, ConfigError, f"The configuration {path} cannot be read", most=4 * LONGEST_DOCUMENT)
        values = read_yaml(text, f"The configuration {path} is not valid YAML")
        if values is not None and not isinstance(values, dict):
            raise ConfigError(f"The configuration {path} must be a mapping of keys to values.")
        return cls.from_mapping(values or {}, source=str(path), overrides=overrides)

    @classmethod
    def from_mapping(
        cls, values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "the configuration"
    ) -> TrainConfig:
        """Build from nested mappings, checked as by `load`; keys of older versions are read as by `load`."""
        parsed = [parse_override(text) for text in overrides]
        return cls._read(values, parsed, source)

    def changed(self, **changes: Any) -> TrainConfig:
        """The configuration with some values in place of others, checked again.

        A key inside of a section is named with its dots, as in `config.changed(**{"objective.temperature": 0.05})`; a section
        that is given as a mapping replaces the whole one. Raises ConfigError as a new configuration does.
        """
        values = [(key.split("."), _plain(value)) for key, value in changes.items()]
        return self._read(self.to_mapping(), values, "")

    def flat(self) -> dict[str, Any]:
        """Every dotted key, as in `xmc train --set`, and its plain value."""
        return dict(_flat(self.to_mapping()))

    def to_yaml(self) -> str:
        """The whole configuration as YAML, every key written out."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False)

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Iterable[tuple[list[str], Any]], source: str) -> TrainConfig:
        """Values, then changes, the shorter keys and kinds first so that a section's kind comes before its keys."""
        given = Values(source or cls.__name__, default_kinds(cls), plain_values(cls))
        with boundary(ConfigError, f"{given.source} cannot be read"):  # values of callers may be nested without end
            given.update(values)
            for keys, value in sorted(changes, key=lambda change: (len(change[0]), change[0][-1] != "kind")):
                given.put(keys, value)
            mapping = given.mapping()
        if given.renamed:
            names = ", ".join(f"{old} is {new}" for old, new in given.renamed.items())
            logger.warning("%s has keys of an older version, which are called otherwise now: %s", given.source, names)
        return super().from_mapping(mapping, source=source)


def _plain(value: Any) -> Any:
    """Sections as mappings, inside of lists too."""
    if isinstance(value, Section):
        return value.to_mapping()
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = prefix + name
        if isinstance(value, Mapping):
            yield from _flat(value, key + ".")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for section in value:
                yield from _flat(section, f"{key}.{section['kind']}.")
        else:
            yield key, value

"""Typed configuration: an unknown key, a wrong type or a value out of range is an error before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from xmc.config.mappings import dataclass_from_mapping, merge_overrides, parse_override
from xmc.errors import ConfigError

__all__ = [
    "BankConfig",
    "CheckpointConfig",
    "ClustersConfig",
    "DistillationConfig",
    "ImagesConfig",
    "LoRAConfig",
    "MarginConfig",
    "PrototypesConfig",
    "ShortlistConfig",
    "StaticConfig",
    "TrainConfig",
    "TransformerConfig",
]

NEGATIVES = ("all", "bank", "in-batch", "sampled", "shortlist", "clusters")


@dataclass(frozen=True)
class StaticConfig:
    """The static encoder: words, word bigrams and character n-grams hashed into one table.

    dimension: length D of an embedding.
    table_rows: rows of the one table that all features share.
    weight_slots: number of learned feature weights, shared by hash as well.
    kind_scales: a factor for each kind of feature: words, word bigrams, character 3-, 4- and 5-grams; 0 leaves a kind out.
    """

    dimension: int = 384
    table_rows: int = 262_144
    weight_slots: int = 262_144
    kind_scales: tuple[float, ...] = (1.0, 1.0, 0.7, 0.7, 0.7)

    def __post_init__(self) -> None:
        _at_least(self, "static.", dimension=1, table_rows=1, weight_slots=1)
        if len(self.kind_scales) != 5 or min(self.kind_scales) < 0 or not any(self.kind_scales):
            raise ConfigError(
                f"static.kind_scales must be five numbers >= 0, not all 0, but is {list(self.kind_scales)}."
            )


@dataclass(frozen=True)
class ImagesConfig:
    """Image embeddings that come with a text.

    dimension: numbers of each, 0 for no images. most: so many of a text's images are used at most.
    learning_rate: the highest, of the layer that projects them to the backbone's width; by default that of the encoder.
    """

    dimension: int = 0
    most: int = 3
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        _at_least(self, "transformer.images.", dimension=0, most=1)
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ConfigError(f"transformer.images.learning_rate must be greater than 0, but is {self.learning_rate}.")


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters of a frozen backbone (Hu et al., LoRA, ICLR 2022), by the package peft.

    rank: of the adapters; 0 for none, and the whole backbone is trained. alpha: their scale; by default the rank.
    rank_stabilized: scale by alpha over the root of the rank (Kalajdzievski, rsLoRA, 2023), not over the rank.
    dropout: of the adapters' input.
    weight_decomposed: learn each weight's size apart from its direction (Liu et al., DoRA, ICML 2024).
    target: names, or ends of names, of the linear layers that have adapters; none for all of the backbone's.
    """

    rank: int = 0
    alpha: float | None = None
    rank_stabilized: bool = True
    dropout: float = 0.0
    weight_decomposed: bool = False
    target: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _at_least(self, "transformer.lora.", rank=0)
        if self.alpha is not None and not self.alpha > 0:
            raise ConfigError(f"transformer.lora.alpha must be greater than 0, but is {self.alpha}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"transformer.lora.dropout must be a share in [0, 1), but is {self.dropout}.")


@dataclass(frozen=True)
class TransformerConfig:
    """A pretrained transformer: an encoder, or a decoder-only language model without its head.

    directory: a Hugging Face or sentence-transformers directory, or one with a GGUF file, or that file.
    pooling: "mean" over all tokens, "cls", the first of them, "last", or "eos", the end-of-sequence token's, which is put there
        where the tokenizer does not; by default as the directory says, else "mean".
    max_length: tokens kept of a text with its prompt, images apart; by default as the directory says. A prompt is never cut.
    attention: "bidirectional" lets every token of a decoder see all others; "default" is what the model was trained with.
    query_prompt, label_prompt: what stands around the text, such as "This product text {text} and its image {images}"; {images}
        is where image embeddings go, before everything where it is not said. By default as the directory says, else the text.
    images: image embeddings that come with texts.
    lora: adapters of a frozen backbone.
    quantization: "4bit" holds the weights that adapters leave frozen in four bits, by the package bitsandbytes.
    liger: replace parts of the backbone by the kernels of the package liger-kernel, on a GPU.
    projection: output dimension of an added linear layer, or none.
    dtype: of the backbone's weights and activations.
    micro_batch_size: texts encoded at once; with the training option gradient_cache, the activations held are those of this
        many texts.
    dropout: of hidden states and attention in training; by default as the directory says.
    frozen_layers: the token embeddings and this many of the first layers are left as they are; 0 trains everything.
    gradient_checkpointing: hold each layer's input instead of all its activations, and compute these again.
    compile: compile the backbone with torch.compile.
    shard: under torchrun, split the backbone's parameters, gradients and moments over the processes (FSDP2), for one that does
        not fit each of them; needs the training option gradient_cache.
    """

    directory: str = ""
    pooling: Literal["mean", "cls", "last", "eos"] | None = None
    max_length: int | None = None
    attention: Literal["default", "bidirectional"] = "default"
    query_prompt: str | None = None
    label_prompt: str | None = None
    images: ImagesConfig = field(default_factory=ImagesConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    quantization: Literal["none", "4bit"] = "none"
    liger: bool = False
    projection: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    micro_batch_size: int = 128
    dropout: float | None = None
    frozen_layers: int = 0
    gradient_checkpointing: bool = False
    compile: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        if self.shard and self.compile:
            raise ConfigError("transformer.shard and transformer.compile do not go together; set one of them to false.")
        if self.images.dimension and self.shard:
            raise ConfigError("transformer.shard does not go with images; set transformer.images.dimension to 0.")
        if self.lora.rank and self.shard:
            raise ConfigError(
                "transformer.shard splits a backbone that is trained whole; set transformer.lora.rank to 0."
            )
        if self.lora.rank and self.frozen_layers:
            raise ConfigError("transformer.lora freezes the whole backbone; set transformer.frozen_layers to 0.")
        if self.quantization != "none" and not self.lora.rank:
            raise ConfigError(
                "Weights of 4 bits cannot be trained; set transformer.lora.rank, or quantization to none."
            )
        _at_least(self, "transformer.", max_length=3, projection=1, micro_batch_size=1, frozen_layers=0)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError(f"transformer.dropout must be a share in [0, 1), but is {self.dropout}.")


@dataclass(frozen=True)
class BankConfig:
    """The negatives "bank": which labels a step encodes besides the positives of its queries.

    hard: of each query, the labels that score highest by the bank.
    refresh: labels in rotation, in random order, so that none grows old.
    unbiased: the labels in rotation stand for all that the step does not encode, and their gradient counts so many times more;
        the encoder's gradient is then an unbiased estimate of that of the negatives "all" at the bank's embeddings. To be
        used with a `refresh` of some percent of the labels; with fewer it is noise.
    positives: the share of the batch's distinct positives that is encoded, drawn at random; the others come from the bank,
        as all labels do, and their residual vectors are trained all the same.
    """

    hard: int = 4
    refresh: int = 64
    unbiased: bool = False
    positives: float = 1.0

    def __post_init__(self) -> None:
        _at_least(self, "bank.", hard=0, refresh=0)
        if not 0 <= self.positives <= 1:
            raise ConfigError(f"bank.positives must be a share in [0, 1], but is {self.positives}.")


@dataclass(frozen=True)
class ShortlistConfig:
    """The negatives "shortlist": hard negatives mined from an index of all labels as the model embeds them.

    size: labels of each query in a step, drawn from its window.
    window_start, window_end: which of a query's labels that are not positive, by rank, the window holds.
    refresh_steps: steps after which the window is mined again, in the background, for the steps after the next so many.
    index: "exact", or a FAISS factory string.
    """

    size: int = 8
    window_start: int = 0
    window_end: int = 32
    refresh_steps: int = 500
    index: str = "exact"

    def __post_init__(self) -> None:
        _at_least(self, "shortlist.", size=1, window_start=0, refresh_steps=1)
        if self.window_end < self.window_start + self.size:
            raise ConfigError(
                f"shortlist.window_end must be at least window_start + size, {self.window_start + self.size}, "
                f"but is {self.window_end}."
            )


@dataclass(frozen=True)
class ClustersConfig:
    """The negatives "clusters": batches made of balanced clusters of queries, so that in-batch negatives are hard.

    first_epoch: counted from 1; batches are random before it. refresh_epochs: epochs between two clusterings.
    size: queries of a cluster at first. doubling_epochs: epochs, counted from 1, from which on the size is doubled (again).
    """

    first_epoch: int = 2
    refresh_epochs: int = 1
    size: int = 8
    doubling_epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _at_least(self, "clusters.", first_epoch=1, refresh_epochs=1, size=1)


@dataclass(frozen=True)
class PrototypesConfig:
    """The label vectors "prototypes": a label's text, a free vector of its cluster and its queries' centroid, combined.

    clusters: free vectors, at most one a label. initial: they start at the "means" of their labels' texts, or random
        ("xavier").
    centroids: "stale", from what queries were when last in a batch, anew before each epoch; or "moving_average", at each
        step, of which `momentum` is what stays. Evaluated and saved models have those of the model as it then is.
    heads, feedforward, dropout: of the layer that combines.
    learning_rate: the highest, of that layer and of the free vectors, which have no weight decay.
    text_weight, label_to_query_weight: of the loss that ranks labels by their texts alone, and of the one that ranks queries
        for each label's text, beside that of the prototypes. regularisation: of the prototypes' lead over texts.
    """

    clusters: int = 65_536
    initial: Literal["means", "xavier"] = "means"
    centroids: Literal["stale", "moving_average"] = "stale"
    momentum: float = 0.95
    heads: int = 8
    feedforward: int = 1024
    dropout: float = 0.1
    learning_rate: float = 5e-4
    text_weight: float = 1.0
    label_to_query_weight: float = 1.0
    regularisation: float = 0.1

    def __post_init__(self) -> None:
        _at_least(self, "prototypes.", clusters=1, heads=1, feedforward=1)
        _at_least(self, "prototypes.", text_weight=0, label_to_query_weight=0, regularisation=0)
        for name in ("momentum", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"prototypes.{name} must be a share in [0, 1), but is {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ConfigError(f"prototypes.learning_rate must be greater than 0, but is {self.learning_rate}.")


@dataclass(frozen=True)
class MarginConfig:
    """The loss "triplet_margin", and the regularisation of prototypes.

    negatives: the hardest ones of each query. least, most: the margin, which is how far a positive and a negative are apart.
    temperature: of the softmax that weights the violators.
    """

    negatives: int = 10
    least: float = 0.1
    most: float = 0.3
    temperature: float = 0.1

    def __post_init__(self) -> None:
        _at_least(self, "margin.", negatives=1, least=0)
        if self.most < self.least:
            raise ConfigError(f"margin.most must be at least margin.least, {self.least}, but is {self.most}.")
        if not self.temperature > 0:
            raise ConfigError(f"margin.temperature must be greater than 0, but is {self.temperature}.")


@dataclass(frozen=True)
class DistillationConfig:
    """A teacher, from whose scores the model learns too.

    teacher: a run directory over labels of the same uids; "" for none.
    labels: so many of the teacher's best labels of each query, weighted by the softmax of its scores over `temperature`.
    weight: of what the teacher says; the rest, up to 1, is that of the loss on the positives.
    """

    teacher: str = ""
    labels: int = 32
    temperature: float = 0.05
    weight: float = 0.5

    def __post_init__(self) -> None:
        _at_least(self, "distillation.", labels=1)
        if not self.temperature > 0:
            raise ConfigError(f"distillation.temperature must be greater than 0, but is {self.temperature}.")
        if not 0 < self.weight <= 1:
            raise ConfigError(f"distillation.weight must be a share in (0, 1], but is {self.weight}.")


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints, from which `resume` goes on; they stand beside the run directory, and go when the run is whole.

    minutes, steps: how much training may be lost, in time and in steps; none for no limit of that kind.
    keep: how many of the latest there are.
    """

    minutes: float | None = 10.0
    steps: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        _at_least(self, "checkpoint.", minutes=0, steps=1, keep=1)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that `xmc.train` can be told. The defaults are what `xmc quickstart` runs.

    encoder: "static" or "transformer", configured under the key of that name.
    share_towers: one encoder for queries and labels, or one each.
    label_vectors: "residual" adds a learned vector to each encoded label (the classifier part); "prototypes" combines it with
        a vector of its cluster and its queries' centroid, configured under that name; "none" leaves it as it is.
    normalize: embeddings of unit length, so that scores are cosines; inner products otherwise.
    loss: see xmc.kernels.losses; "soft_topk" and "binary_cross_entropy" need negatives "all" or "bank"; "triplet_margin" is
        configured under `margin` and has no temperature τ.
    temperature: τ of the loss, the start value when learn_temperature is set.
    negatives: which labels a step scores, besides its queries' positives: "all"; "bank", all labels too, of which most are
        not encoded in the step but some steps ago; or one or several, joined by +, of "in-batch" (no others), "sampled"
        (`sampled_negatives` drawn uniformly, with the log-q correction), "shortlist" (hard ones, mined) and "clusters" (no
        others, but batches of similar queries). "bank", "shortlist" and "clusters" are configured under their name.
    positives_per_query: positives of a query in a step, drawn at random; the query's others count nowhere. None for all.
    positives_drawn: with equal chances ("uniform"), or the rarer the likelier: by "inverse_propensity", with A and B of the
        propensity model in `positives_propensity`.
    in_batch_positives: a query's other positives, where the step scores them for another query, are positives of it as well.
    nested_dimensions: the loss is the mean over embeddings cut to these many numbers, and whole ones (Matryoshka embeddings,
        Kusupati et al., NeurIPS 2022), so that the run can be served at each of them; see Retriever.cut.
    distillation: a teacher to learn from, see DistillationConfig.
    gradient_cache: encode twice, without and then with gradient, so that memory does not grow with the batch.
    precision: "bfloat16" for encoders in autocast; losses and optimizers keep float32.
    epochs, batch_size: passes over the training queries, and queries of a step: an epoch is cut into as many equal batches as
        hold at least `batch_size` queries each.
    learning_rate: the highest, of the encoder; reached after `warmup_steps`, by default the share `warmup` of all steps, then
        linear decay to zero. By default 5e-3 for the static encoder, 5e-5 for a transformer.
    weight_learning_rate: the highest, of the static encoder's feature weights.
    label_vector_learning_rate: the highest, of the label vectors.
    weight_decay, epsilon: of AdamW, for the transformer encoder.
    max_gradient_norm: of all the transformer encoder's gradients together, which are scaled down to it; none for no limit.
    label_vector_moments: how the two moments of each label vector are stored: bfloat16 takes half, int8 about a quarter of
        float32's memory.
    label_vector_memory: "host" leaves the label vectors and their moments in host memory, where they do not fit the device; a
        step's rows go to the device while it encodes texts, and their gradients come back.
    token_dropout, label_token_dropout: share of a query's, a label's tokens dropped in training.
    label_vector_dropout: share of labels whose residual vector is left out of a step, so that the encoder learns too.
    validation: share of the training queries held out and evaluated after each epoch, or every `validation_steps` steps;
        0 for none.
    validation_metric: which metric of the held-out queries is to be the best, such as P@1, nDCG@5 or PSP@5.
    calibration: share of the training queries that are kept aside, for `xmc calibrate`; drawn by `seed`. 0 for none.
    patience: evaluations without a better one after which training stops; the best model is kept.
    relevance_weights: weight positives by the data set's relevance.
    token_cache: a directory where the texts' tokens are kept between runs, by content; by default they are not.
    index: "auto": exact search below 50,000 labels, and above, the design that is fastest as measured at a recall@10 of 0.99
        (tuning takes ten minutes at most); "exact"; a storage of xmc.indexes.designs, such as "int8"; or a FAISS factory
        string such as "HNSW32" or "IVF256,Flat".
    seed: of initialisation, batch order, dropout and sampling.
    device: "cpu", "cuda", "cuda:1", or "auto".
    tile_bytes: largest size of a tile of scores, in bytes.
    tensorboard: write the log for TensorBoard too, into the run's directory `tensorboard`.
    """

    encoder: Literal["static", "transformer"] = "static"
    static: StaticConfig = field(default_factory=StaticConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    share_towers: bool = True
    label_vectors: Literal["none", "residual", "prototypes"] = "residual"
    prototypes: PrototypesConfig = field(default_factory=PrototypesConfig)
    normalize: bool = True
    loss: Literal[
        "softmax",
        "decoupled_softmax",
        "multi_label_cluster_discrimination",
        "soft_topk",
        "binary_cross_entropy",
        "triplet_margin",
    ] = "decoupled_softmax"
    margin: MarginConfig = field(default_factory=MarginConfig)
    temperature: float = 0.045
    learn_temperature: bool = False
    negatives: str = "all"
    sampled_negatives: int = 8192
    bank: BankConfig = field(default_factory=BankConfig)
    shortlist: ShortlistConfig = field(default_factory=ShortlistConfig)
    clusters: ClustersConfig = field(default_factory=ClustersConfig)
    positives_per_query: int | None = None
    positives_drawn: Literal["uniform", "inverse_propensity"] = "uniform"
    positives_propensity: tuple[float, ...] = (0.55, 1.5)
    in_batch_positives: bool = False
    nested_dimensions: tuple[int, ...] = ()
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    gradient_cache: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    epochs: int = 9
    batch_size: int = 512
    learning_rate: float | None = None
    weight_learning_rate: float = 0.05
    label_vector_learning_rate: float = 3e-3
    weight_decay: float = 0.01
    epsilon: float = 1e-8
    max_gradient_norm: float | None = None
    label_vector_moments: Literal["float32", "bfloat16", "int8"] = "float32"
    label_vector_memory: Literal["device", "host"] = "device"
    warmup: float = 0.05
    warmup_steps: int | None = None
    token_dropout: float = 0.3
    label_token_dropout: float = 0.3
    label_vector_dropout: float = 0.0
    validation: float = 0.0
    validation_steps: int | None = None
    validation_metric: str = "P@1"
    calibration: float = 0.0
    patience: int = 2
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    relevance_weights: bool = False
    token_cache: str | None = None
    index: str = "auto"
    seed: int = 0
    device: str = "auto"
    tile_bytes: int = 64 * 2**20
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _at_least(self, "", epochs=1, batch_size=1, sampled_negatives=1, patience=1, tile_bytes=1, weight_decay=0)
        _at_least(self, "", positives_per_query=1, validation_steps=1, warmup_steps=0)
        for name in (
            "temperature", "encoder_learning_rate", "weight_learning_rate", "label_vector_learning_rate", "epsilon",
            "max_gradient_norm",
        ):  # fmt: skip
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                key = name.removeprefix("encoder_")
                raise ConfigError(f"{key} must be greater than 0, but is {getattr(self, name)}.")
        for name in (
            "warmup",
            "token_dropout",
            "label_token_dropout",
            "label_vector_dropout",
            "validation",
            "calibration",
        ):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be a share in [0, 1), but is {getattr(self, name)}.")
        if len(self.positives_propensity) != 2 or min(self.positives_propensity) <= 0:
            raise ConfigError(
                f"positives_propensity must be two numbers A and B > 0, but is {list(self.positives_propensity)}."
            )
        if any(dimension < 1 for dimension in self.nested_dimensions):
            raise ConfigError(f"nested_dimensions must be at least 1 each, but are {list(self.nested_dimensions)}.")
        if len(set(self.nested_dimensions)) < len(self.nested_dimensions):
            raise ConfigError(f"nested_dimensions {list(self.nested_dimensions)} names one twice.")
        self._check_negatives()
        self._check_prototypes()
        if self.encoder == "static" and self.device not in ("auto", "cpu"):
            raise ConfigError(f"The static encoder runs on the CPU; device must be auto or cpu, not {self.device!r}.")
        if self.encoder == "transformer" and not self.transformer.directory:
            raise ConfigError("encoder is transformer, so transformer.directory must name a model directory.")
        if self.transformer.shard and not self.gradient_cache:
            raise ConfigError("transformer.shard needs gradient_cache; set it to true.")

    def _check_negatives(self) -> None:
        names = self.negatives.split("+")
        for name in names:
            if name not in NEGATIVES:
                raise ConfigError(f"negatives must be made of {', '.join(NEGATIVES)}, but has {name!r}.")
        if len(names) > 1 and (whole := {"all", "bank"} & set(names)):
            raise ConfigError(f"negatives {min(whole)} scores every label; it cannot be joined with others.")
        if len(set(names)) < len(names):
            raise ConfigError(f"negatives {self.negatives!r} names one kind twice.")
        if self.loss in ("soft_topk", "binary_cross_entropy") and self.negatives not in ("all", "bank"):
            raise ConfigError(
                f"The loss {self.loss} is defined over all labels; set negatives to all or bank, not {self.negatives}."
            )

        if self.in_batch_positives and self.negatives in ("all", "bank"):
            raise ConfigError(
                f"in_batch_positives is for negatives that score some labels; leave positives_per_query unset to have all "
                f"positives with negatives {self.negatives}."
            )

    def _check_prototypes(self) -> None:
        if self.label_vectors == "prototypes" and self.loss in ("soft_topk", "binary_cross_entropy"):
            raise ConfigError(
                f"The loss {self.loss} ranks all labels of a query; prototypes also rank queries for a label. Set loss to "
                f"triplet_margin, softmax or decoupled_softmax."
            )

    @property
    def encoder_learning_rate(self) -> float:
        """`learning_rate`, or the encoder's default."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 5e-3 if self.encoder == "static" else 5e-5

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
        """Read a YAML file, then apply overrides of the form `key=value`, as in `static.dimension=512`.

        Raises ConfigError for a file that cannot be read, an unknown key (with the nearest known one) or a wrong type.
        """
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The configuration {path} cannot be read: {error}.") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"The configuration {path} is not valid YAML: {error}.") from error
        if values is not None and not isinstance(values, dict):
            raise ConfigError(f"The configuration {path} must be a mapping of keys to values.")
        return cls.from_mapping(values or {}, overrides, source=str(path))

    @classmethod
    def from_mapping(
        cls, values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "the configuration"
    ) -> TrainConfig:
        """Build from nested mappings, checked as by `load`."""
        merged = merge_overrides(values, [parse_override(text) for text in overrides])
        return dataclass_from_mapping(cls, merged, source)

    def to_mapping(self) -> dict[str, Any]:
        """Nested plain values, as `from_mapping` takes them."""
        return dataclasses.asdict(
            self, dict_factory=lambda items: {k: list(v) if isinstance(v, tuple) else v for k, v in items}
        )

    def to_yaml(self) -> str:
        """The whole configuration as YAML, every key written out."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False)


def _at_least(owner: Any, prefix: str, **lowest: float) -> None:
    for name, bound in lowest.items():
        value = getattr(owner, name)
        if value is not None and value < bound:
            raise ConfigError(f"{prefix}{name} must be at least {bound}, but is {value}.")

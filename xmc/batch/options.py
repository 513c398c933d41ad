"""What a batch job is asked to do with its input."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from xmc.data.files import Kind, TextForm, WantedColumn
from xmc.errors import ConfigError, require_package

__all__ = ["PAYLOAD", "POLICIES", "UID", "Columns", "JobOptions"]

POLICIES = ("error", "null", "drop")
UID, PAYLOAD = "uid", "payload"
"""What the columns of a batch of input are called, whatever the file calls them."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, and how text files are written. One column of texts, tokens or embeddings is read.

    uid: strings or whole numbers; None for the column "uid" where a file has it, else a row's uid is its number in the file,
    from 0, behind the name of the file where there are more. text: strings; None for "text". tokens: lists of token ids, as
    the run's query encoder makes them. embedding: lists of D numbers. Where uid or text is None, the column that the run's data
    set had in its source goes first, see xmc.batch.columns. encoding, delimiter, max_line: of text files, as in
    xmc.data.files.TextForm.
    """

    uid: str | None = None
    text: str | None = None
    tokens: str | None = None
    embedding: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    max_line: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.embedding is not None:
            raise ConfigError("Name a column of tokens or one of embeddings, not both.")

    @property
    def payload(self) -> str:
        """The column that is read beside uid."""
        return self.embedding or self.tokens or self.text or "text"

    @property
    def wanted(self) -> tuple[WantedColumn, WantedColumn]:
        """What is asked of a file."""
        kind: Kind = "embedding" if self.embedding else "tokens" if self.tokens else "text"
        uid = WantedColumn(self.uid or "uid", "uid", self.uid is not None, UID, "--uid-column")
        return uid, WantedColumn(self.payload, kind, key=PAYLOAD, option=f"--{kind}-column")

    @property
    def described(self) -> dict[str, str | None]:
        """What decides the result: all but the length of a line that is allowed."""
        return {name: value for name, value in asdict(self).items() if name != "max_line"}

    @property
    def form(self) -> TextForm:
        """How text files are written."""
        return TextForm(self.encoding, self.delimiter, max_line=self.max_line)


@dataclass(frozen=True)
class JobOptions:
    """How a job goes about its work.

    on_bad_row: "error" stops at the first, "null" writes it with null, "drop" leaves it out; either way they are counted.
    rows_per_part: rows of input behind one file of output, which is what a kill can lose.
    resume: go on with what another run of the same job left.
    engine: "local", or "ray", with `workers` actors (by default one a GPU, or one for each two processors), at the cluster
        `address` (by default the one that Ray finds, else this machine). index_shards: actors among which the labels are
        split; 0 for an index in each worker.
    device: where each worker runs, as of Retriever.load; a job that was begun on one may go on on another.

    Raises ConfigError for values that are none of these, DependencyError for the engine ray where it is not installed.
    """

    columns: Columns = field(default_factory=Columns)
    on_bad_row: str = "error"
    rows_per_part: int = 100_000
    resume: bool = False
    engine: str = "local"
    workers: int | None = None
    address: str | None = None
    index_shards: int = 0
    device: str | tuple[str, ...] = "auto"

    def __post_init__(self) -> None:
        if self.on_bad_row not in POLICIES:
            raise ConfigError(f"on_bad_row must be one of {', '.join(POLICIES)}, but is {self.on_bad_row!r}.")
        if self.engine not in ("local", "ray"):
            raise ConfigError(f"engine must be local or ray, but is {self.engine!r}.")
        for name, least in (("rows_per_part", 1), ("workers", 1), ("index_shards", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, but is {value}.")
        if self.engine == "local" and (self.workers or self.address or self.index_shards):
            raise ConfigError("workers, address and index_shards belong to the engine ray.")
        if self.engine == "ray":
            require_package("ray", "The engine is ray", '"ray[data]"')

"""Runs on the Hugging Face Hub: a repository holds the files of a run directory, and a card.

Only what the run's manifests list is downloaded, only files that hold plain data, and every one is verified.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypedDict

from typing_extensions import Unpack

from xmc.errors import InputError, StoreError, XMCError
from xmc.search.model_card import CardResults, model_card
from xmc.search.run import Run
from xmc.search.run_directory import RunDirectory
from xmc.storage.manifests import MANIFEST, listed_files, read_manifest, require_free, verify_all
from xmc.storage.run_layout import KIND

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["ACCEPTED", "PushOptions", "pull", "push"]

ACCEPTED = frozenset({".safetensors", ".arrow", ".parquet", ".json", ".jinja", ".model", ".txt", ".yaml"})
"""Endings of files that are taken from a repository: safetensors, Arrow and Parquet; text; `.model` is a vocabulary of
SentencePiece. No pickle is among them, nor what FAISS writes."""
CARD = "README.md"
COMMIT = re.compile(r"[0-9a-f]{40}")
PLAIN_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")
"""Name of a file below a directory: no wildcard, for which the Hub's client would take other files."""
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class PushOptions(TypedDict, total=False):
    """How a run is uploaded.

    private: of a new repository; None is what its owner's settings say. revision: a branch; None is main. token: None is
    the one of `hf auth login`.
    """

    private: bool | None
    revision: str | None
    token: str | None


def push(run: Run, repo: str, results: CardResults | None = None, **options: Unpack[PushOptions]) -> str:
    """Upload a run as one commit, which replaces what the repository held; returns the address of the commit.

    The repository, and a branch, are made where they are not there. Adapters are merged into their backbone;
    an index that FAISS wrote is left out, and exact search takes its place.

    Raises InputError for a name that no repository can have, StoreError where the Hub refuses, with its reason.
    """
    with _in_sentences(repo), _bars_in_terminals(), TemporaryDirectory() as temporary:
        revision = options.get("revision")
        api = _api(options.get("token"))
        api.create_repo(repo, private=options.get("private"), exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        folder = Path(temporary) / "run"
        RunDirectory(folder).write(run.standalone())
        refused = _refused(listed_files(folder, KIND))
        if refused is not None:
            raise StoreError(f"The run holds {refused!r}, which is no file that `from_hub` takes: {_accepted()}.")
        (folder / CARD).write_text(model_card(run, repo, results), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                revision=revision,
                delete_patterns="*",
                commit_message=f"A run with {len(run.labels):,} labels",
            )
        return str(commit.commit_url)


def pull(repo: str, revision: str | None = None, directory: str | Path | None = None, token: str | None = None) -> Path:
    """Download a run, whole or not at all, and verify every file against its checksum; returns its directory.

    revision: a branch, a tag, or the hash of a commit, which always means the same files; None is the branch main.
    directory: where to put it; None is a folder of the Hub's own cache (HF_HOME) for that commit, which is used again.
    Raises InputError for a name that no repository can have; StoreError where there is no such repository or revision, it holds
    no run, a file of another kind than `ACCEPTED`, or one that does not fit its checksum, and where `directory` is taken.
    """
    from huggingface_hub.constants import HF_HOME  # a search needs none of it
    from huggingface_hub.utils import WeakFileLock, validate_repo_id  # type: ignore[attr-defined]  # documented there

    with _in_sentences(repo, revision), _bars_in_terminals():
        validate_repo_id(repo)
        if directory is not None:
            require_free(Path(directory), KIND)
        commit = revision if revision and COMMIT.fullmatch(revision) else _commit_of(repo, revision, token)
        cache, name = Path(HF_HOME) / "xmc", repo.replace("/", "--")
        lock = cache / "locks" / f"{name}.{commit}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):  # another process that wants the same commit waits for its files
            folder = cache / name / commit if directory is None else Path(directory)
            if directory is None and folder.is_dir():
                return folder
            staging = folder.with_name(f".{folder.name}.{commit[:12]}.download")
            try:
                _download(repo, commit, staging, token)
            except StoreError:  # not where the connection broke: the next call goes on from there
                shutil.rmtree(staging, ignore_errors=True)
                raise
            staging.replace(folder)
            return folder


def _commit_of(repo: str, revision: str | None, token: str | None) -> str:
    """The hash of the commit that a branch or a tag names; it becomes a part of paths."""
    commit = _api(token).model_info(repo, revision=revision).sha
    if commit is None or not COMMIT.fullmatch(commit):
        raise StoreError(
            f"{_endpoint()} says that the repository {repo} is at {commit!r}, which is no hash of a commit."
        )
    return commit


def _download(repo: str, commit: str, staging: Path, token: str | None) -> None:
    """Download the files that the manifests list; what an interrupted download has left is used."""
    from huggingface_hub import snapshot_download

    def fetch(names: list[str]) -> None:
        snapshot_download(
            repo, revision=commit, local_dir=staging, allow_patterns=names, token=token, endpoint=_endpoint()
        )

    fetch([MANIFEST])
    if not (staging / MANIFEST).is_file():
        raise StoreError(
            f"The repository {repo} holds no {MANIFEST} in the commit {commit}, so it is not a saved {KIND}."
        )
    outer = read_manifest(staging, KIND, verify=False)["files"]
    _require_accepted(repo, outer)
    fetch([name for name in outer if PurePosixPath(name).name == MANIFEST])
    listed = listed_files(staging, KIND)
    _require_accepted(repo, listed)
    fetch(sorted(listed))
    shutil.rmtree(staging / ".cache", ignore_errors=True)  # what the Hub's client knows of the download
    verify_all(staging, KIND)


def _require_accepted(repo: str, names: Iterable[str]) -> None:
    refused = _refused(names)
    if refused is not None:
        raise StoreError(f"The repository {repo} lists the file {refused!r}, which is not taken: {_accepted()}.")


def _refused(names: Iterable[str]) -> str | None:
    """The first name, by the alphabet, of a file that is not taken; None where all are."""
    for name in sorted(names):
        path = PurePosixPath(name)
        if not PLAIN_NAME.fullmatch(name) or ".." in path.parts or path.suffix not in ACCEPTED:
            return name
    return None


def _accepted() -> str:
    return f"only files of the run with the endings {', '.join(sorted(ACCEPTED))} are"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint(), token=token, library_name="xmc")


@contextlib.contextmanager
def _in_sentences(repo: str, revision: str | None = None) -> Iterator[None]:
    """Errors of the Hub's client, and of the transport below it, as sentences."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except XMCError:
        raise
    except HFValidationError as error:
        raise InputError(f"{repo!r} is not the name of a repository, such as owner/name: {error}") from error
    except RevisionNotFoundError as error:
        raise StoreError(f"The repository {repo} at {_endpoint()} has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise StoreError(
            f"There is no repository {repo} at {_endpoint()} that you may use: look at its name, or {LOG_IN}."
        ) from error
    except HfHubHTTPError as error:
        remedy = f" You may have to {LOG_IN}." if error.response.status_code in (401, 403) else ""
        raise StoreError(f"{_endpoint()} refuses the repository {repo}: {_one_line(error)}{remedy}") from error
    except Exception as error:  # a transport's: which one depends on the version of the Hub's client
        raise StoreError(
            f"The repository {repo} at {_endpoint()} cannot be used: {type(error).__name__}: {_one_line(error)}"
        ) from error


@contextlib.contextmanager
def _bars_in_terminals() -> Iterator[None]:
    """The bars of the Hub's client in a terminal; none where they would fill a file of logs."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""The folder that a job writes: one job at a time, parts that are whole or absent, and at the end a list of them with counts.

_job.json           what the job is; a job that resumes it must be the same
part-00000.parquet  rows in the order of the input; what made it and what was counted, in its metadata
_part-00000.json    the latter of a part in a format that has no metadata, such as part-00000.csv, its size and SHA-256
_SUCCESS            JSON: the job, its format, counts, every part with its rows, size and SHA-256; written last
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs as pa_fs

from xmc.batch.form import OutputForm
from xmc.batch.formats import METADATA, OUTPUT_FORMATS, PartWriter
from xmc.batch.plan import Part, Plan
from xmc.batch.summary import Done, Summary
from xmc.data.files import WantedColumn, open_file
from xmc.data.files.addresses import InputFile, file_system
from xmc.errors import StoreError, boundary
from xmc.storage.files import sync
from xmc.storage.locks import hold, release

__all__ = ["JOB", "SUCCESS", "Output", "PartFile"]

JOB, SUCCESS = "_job.json", "_SUCCESS"
_FILES = rf"{JOB}|{SUCCESS}|part-\d+\.\w+|_part-\d+\.json"
_OWN = re.compile(rf"{_FILES}|\.({_FILES})\.\w+\.tmp")
_NAMES = {
    "run": "model",
    "parts": "division into parts",
    "where": "condition",
    "probabilities": "choice of probabilities",
    "sets": "guarantee of sets",
    "decide": "policy of decisions",
    "kept": "choice of columns to keep",
}


class Output:
    """A folder on any file system. On a local one, files are synced before they get their name."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._system, self._path = file_system(self.address)
        self._local = isinstance(self._system, pa_fs.LocalFileSystem)
        if self._local:
            self.address = self._path

    def files(self) -> dict[str, pa_fs.FileInfo]:
        """The entries of the folder by name."""
        try:
            entries = self._system.get_file_info(pa_fs.FileSelector(self._path, allow_not_found=True))
        except OSError as error:
            raise StoreError(f"{self.address} cannot be listed: {error}") from error
        return {info.base_name: info for info in entries}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, which is made where it is not there. Raises StoreError where another job holds it.

        A job that was killed holds nothing. Only local file systems have such locks.
        """
        try:
            if self._system.get_file_info(self._path).type == pa_fs.FileType.File:
                raise StoreError(f"{self.address} is a file; name a folder for the parts of the output.")
            self._system.create_dir(self._path, recursive=True)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{self.address} cannot be made: {error}. Name another folder.") from error
        try:
            held = hold(Path(self._path), wait=False) if self._local else None
        except BlockingIOError as error:
            raise StoreError(
                f"Another job is writing to {self.address}; wait for it, or name another folder."
            ) from error
        try:
            yield
        finally:
            release(held)

    def begin(self, plan: Plan, policy: str, resume: bool) -> dict[int, Done]:
        """Make the folder ready for a job, and return the parts that it has already, by number. Call it while it is held.

        A job that ended before its first part leaves the folder free. Raises StoreError where the folder is not free and
        `resume` is not set, and where it holds another job: the message names the model, input or options that differ.
        """
        files = self.files()
        others = sorted(name for name in files if not _OWN.fullmatch(name))
        if JOB not in files:
            others += sorted(name for name in files if name.startswith("part-"))
        if others:
            raise StoreError(f"{self.address} holds {others[0]}, which is no job's; name an empty or a new folder.")
        if JOB not in files or not any(name == SUCCESS or name.startswith("part-") for name in files):
            self.write_text(JOB, json.dumps(plan.description, indent=2) + "\n")
            return {}
        if not resume:
            if SUCCESS in files:
                raise StoreError(f"{self.address} holds a finished job; name another folder, or remove it first.")
            raise StoreError(
                f"{self.address} holds a job that is not finished; go on by --resume, or name another folder."
            )
        self._require_same(plan)
        self._tidy()
        parts = {part.name: part for part in plan.parts}
        done_parts = {}
        for name in sorted(name for name in files if name.startswith("part-")):
            if name not in parts:
                raise StoreError(f"{self.address}/{name} is not a part of this job; remove it, or name another folder.")
            done = self._checked(parts[name], plan, policy)
            done_parts[done.part] = done
        return done_parts

    def finish(self, plan: Plan, summary: Summary, finished: dict[int, Done]) -> None:
        """Write the list of all parts. finished: the result of each part, by its number."""
        self._tidy()
        with_hashes = []
        for part in plan.parts:
            digest, size = self.digest(f"{self._path}/{part.name}")
            rows = finished[part.number].written
            with_hashes.append({"name": part.name, "rows": rows, "size": size, "sha256": digest})
        form = {"format": plan.form.format, **plan.form.describe()}
        made_by = {"job": plan.fingerprint, "run": plan.work["run"]}
        content = {**made_by, **form, **summary.to_dict(), "parts": with_hashes}
        self.write_text(SUCCESS, json.dumps(content, indent=2) + "\n")

    def metadata(self, part: Part) -> dict[str, Any]:
        """What `PartFile` wrote about a part. StoreError where the file is broken, or is not one."""
        try:
            if OUTPUT_FORMATS[part.format].describes:
                with self._system.open_input_file(f"{self._path}/{part.name}") as file:
                    return dict(json.loads((pq.read_metadata(file).metadata or {})[METADATA]))
            with self._system.open_input_stream(f"{self._path}/{_beside(part)}") as stream:
                described = dict(json.loads(stream.read()))
            if described["bytes"] != self.size(part.name):
                raise ValueError(f"it should have {described['bytes']:,} bytes")
            return described
        except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
            raise StoreError(
                f"{self.address}/{part.name} is not a part that this job wrote, or is broken: {error}"
            ) from error

    def digest(self, path: str) -> tuple[str, int]:
        """SHA-256 of a file, and its bytes."""
        digest, size = hashlib.sha256(), 0
        with self._system.open_input_stream(path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size

    def size(self, name: str) -> int:
        """Bytes of a file of the folder."""
        return int(self._system.get_file_info(f"{self._path}/{name}").size or 0)

    def uids(self, plan: Plan) -> Iterator[pa.Array]:
        """The uid column of all parts, some rows at a time; null for rows without a uid."""
        for part in plan.parts:
            file = open_file(InputFile(f"{self.address}/{part.name}", 0, 0), [WantedColumn("uid", "uid", False)])
            for batch in file.batches():
                uids = batch.column("uid")
                yield uids if OUTPUT_FORMATS[part.format].nulls else uids.filter(pc.not_equal(uids, ""))

    def write_text(self, name: str, text: str) -> None:
        """Write a small file, whole or not at all; StoreError where that cannot be done."""
        temporary = self.temporary(name)
        try:
            with self.writing():
                with self._system.open_output_stream(temporary) as stream:
                    stream.write(text.encode())
                self.publish(temporary, name)
        except StoreError:
            self.discard(temporary)
            raise

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """A context in which what the file system raises becomes a StoreError that names the folder."""
        return boundary(StoreError, f"{self.address} cannot be written", "Make room, and go on by --resume.")

    def temporary(self, name: str) -> str:
        """A path for a file to be written to, before it gets its name."""
        return f"{self._path}/.{name}.{uuid.uuid4().hex[:12]}.tmp"

    def stream(self, path: str) -> pa.NativeFile:
        """For writing."""
        return self._system.open_output_stream(path)

    def publish(self, temporary: str, name: str) -> None:
        """Give a written file its name, in one step."""
        if self._local:
            sync(Path(temporary))
        self._system.move(temporary, f"{self._path}/{name}")
        if self._local:
            sync(Path(self._path))

    def discard(self, temporary: str) -> None:
        """Remove a file that is not going to be published."""
        with contextlib.suppress(OSError):
            self._system.delete_file(temporary)

    def _tidy(self) -> None:
        """Remove what killed processes left."""
        for name in self.files():
            if _OWN.fullmatch(name) and name.endswith(".tmp"):
                self._system.delete_file(f"{self._path}/{name}")

    def _require_same(self, plan: Plan) -> None:
        try:
            with self._system.open_input_stream(f"{self._path}/{JOB}") as stream:
                before = dict(json.loads(stream.read()))
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{self.address}/{JOB} cannot be read: {error}. Name another folder.") from error
        now = json.loads(json.dumps(plan.description))
        for key in sorted(now.keys() | before.keys()):
            if now.get(key) != before.get(key):
                raise StoreError(
                    f"{self.address} holds a job with another {_NAMES.get(key, key)}: {_short(before.get(key))} there, "
                    f"{_short(now.get(key))} here. Repeat that job's options, or name another folder."
                )

    def _checked(self, part: Part, plan: Plan, policy: str) -> Done:
        metadata = self.metadata(part)
        if metadata.get("job") != plan.fingerprint or metadata.get("done", {}).get("part") != part.number:
            raise StoreError(
                f"{self.address}/{part.name} was written by another job, from run {metadata.get('run')}; "
                f"remove it, or name another folder."
            )
        with boundary(StoreError, f"{self.address}/{part.name} is broken", "Remove it, and go on by --resume."):
            done = Done(**metadata["done"])
            self._require_whole(part, metadata, done)
        if done.bad and metadata["policy"] != policy:
            raise StoreError(
                f"{self.address}/{part.name} has bad rows that were treated as --on-bad-row {metadata['policy']} says, not "
                f"{policy}; give the same, or remove it."
            )
        return done

    def _require_whole(self, part: Part, metadata: Mapping[str, Any], done: Done) -> None:
        """ValueError, or what the reader raises, for a part whose bytes are others than those that were written."""
        path = f"{self._path}/{part.name}"
        if not OUTPUT_FORMATS[part.format].describes:
            if "sha256" in metadata and self.digest(path)[0] != metadata["sha256"]:  # versions before wrote none
                raise ValueError("it does not match its SHA-256")
            return
        with (
            self._system.open_input_file(path) as file,
            pq.ParquetFile(file, page_checksum_verification=True) as parquet,
        ):
            rows = sum(len(batch) for batch in parquet.iter_batches())
        if rows != done.written:
            raise ValueError(f"it has {rows:,} rows, and {done.written:,} were written")


class PartFile:
    """A part while it is written; it is finished, or abandoned, and then nothing of it stays."""

    def __init__(self, output: Output, part: Part, schema: pa.Schema, form: OutputForm) -> None:
        self._output, self._part = output, part
        self._temporary = output.temporary(part.name)
        try:
            with output.writing():
                self._stream = output.stream(self._temporary)
                self._writer: PartWriter = OUTPUT_FORMATS[part.format](
                    self._stream, schema, form.separator, form.formulas == "escape"
                )
        except StoreError:  # it was made, and nothing could be written into it
            output.discard(self._temporary)
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows. StoreError where the disk is full."""
        with self._output.writing():
            self._writer.write(batch)

    def finish(self, plan: Plan, policy: str, done: Done) -> None:
        """Close the file, with what made it, and give it its name."""
        described = {"job": plan.fingerprint, "run": plan.work["run"], "policy": policy, "done": asdict(done)}
        with self._output.writing():
            self._writer.close(described)
            self._stream.close()
            if not self._writer.describes:  # before the part: a part that is there is whole
                digest, size = self._output.digest(self._temporary)
                beside = json.dumps({**described, "bytes": size, "sha256": digest}, indent=2) + "\n"
                self._output.write_text(_beside(self._part), beside)
            self._output.publish(self._temporary, self._part.name)

    def abandon(self) -> None:
        """Leave nothing."""
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close({})
            self._stream.close()
        self._output.discard(self._temporary)


def _beside(part: Part) -> str:
    """The name of the file with what made a part, for a format that does not hold it."""
    return f"_part-{part.number:05d}.json"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."

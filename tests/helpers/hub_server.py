"""A hub of repositories in a process of its own, which speaks what the client of the Hugging Face Hub asks of it.

    python hub_server.py FOLDER    prints its address, and serves until it is stopped

FOLDER/OWNER--NAME/COMMIT/ holds the files of each commit, FOLDER/OWNER--NAME/branches.json the branches; a file lie.txt beside
them is what it says in place of the hash of a commit. It wants the token "hf_good" for whatever writes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_good"
BY_LFS = (".safetensors", ".arrow", ".parquet")


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server over a folder; its address."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


class Refused(Exception):
    """An answer other than 200: status, and the code that the client looks at."""

    def __init__(self, status: int, code: str = "", message: str = "", **values: str) -> None:
        super().__init__(message or code)
        self.status, self.code, self.values = status, code, values


class Repository:
    """A repository: commits are folders, branches name them."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / name.replace("/", "--")
        self.name = name

    @property
    def branches(self) -> dict[str, str]:
        """The commit of each branch."""
        if not self.folder.is_dir():
            raise Refused(404, "RepoNotFound", "Repository not found")
        return dict(json.loads((self.folder / "branches.json").read_text()))

    def set_branch(self, branch: str, commit: str) -> None:
        """Let a branch name a commit."""
        branches = self.branches if self.folder.is_dir() else {}
        (self.folder / commit).mkdir(parents=True, exist_ok=True)
        (self.folder / "branches.json").write_text(json.dumps({**branches, branch: commit}))

    def commit_of(self, revision: str) -> str:
        """The commit that a branch or a hash names."""
        branches = self.branches
        commit = branches.get(revision, revision)
        if not re.fullmatch("[0-9a-f]{40}", commit) or not (self.folder / commit).is_dir():
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def files(self, commit: str) -> list[dict[str, Any]]:
        """The files of a commit in the form of the tree."""
        listed = []
        for file in sorted((self.folder / commit).rglob("*")):
            if file.is_file():
                content = file.read_bytes()
                name = file.relative_to(self.folder / commit).as_posix()
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob}
                if name.endswith(BY_LFS):
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
                listed.append(entry)
        return listed

    def commit(self, branch: str, lines: list[dict[str, Any]], objects: Path) -> str:
        """Apply the lines of a commit to a branch; the new commit."""
        before = self.branches[branch]
        commit = hashlib.sha1(os.urandom(20)).hexdigest()
        shutil.copytree(self.folder / before, self.folder / commit)
        for line in lines:
            value = line["value"]
            if line["key"] == "deletedFile":
                (self.folder / commit / value["path"]).unlink()
            elif line["key"] in ("file", "lfsFile"):
                target = self.folder / commit / value["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                if line["key"] == "file":
                    target.write_bytes(base64.b64decode(value["content"]))
                else:
                    shutil.copyfile(objects / value["oid"], target)
        self.set_branch(branch, commit)
        return commit


class Handler(BaseHTTPRequestHandler):
    """One request."""

    root: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """Information, trees and files."""
        self._answer(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Whatever changes a repository."""
        self._answer(self._post)

    def do_PUT(self) -> None:
        """A large file."""
        self._answer(self._put)

    def _answer(self, act: Any) -> None:
        try:
            self._send(200, act())
        except Refused as refused:
            body = {"error": str(refused), **refused.values}
            self._send(refused.status, body, **{"X-Error-Code": refused.code})

    def _send(self, status: int, body: Any, **headers: str) -> None:
        if isinstance(body, tuple):
            body, headers = body
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def _path(self) -> str:
        return urlsplit(self.path).path

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _get(self) -> Any:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", self._path):
            repository = Repository(self.root, match[1])
            commit = repository.commit_of(unquote(match[2] or "main"))
            siblings = [{"rfilename": entry["path"]} for entry in repository.files(commit)]
            lie = repository.folder / "lie.txt"
            return {"id": match[1], "sha": lie.read_text() if lie.exists() else commit, "siblings": siblings}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._path):
            repository = Repository(self.root, match[1])
            return repository.files(repository.commit_of(unquote(match[2])))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._path):
            repository = Repository(self.root, match[1])
            commit, name = repository.commit_of(unquote(match[2])), unquote(match[3])
            found = [entry for entry in repository.files(commit) if entry["path"] == name]
            if not found:
                raise Refused(404, "EntryNotFound", name)
            etag = found[0].get("lfs", found[0])["oid"]
            content = (repository.folder / commit / name).read_bytes()
            return content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        raise Refused(404, "", self._path)

    def _post(self) -> Any:
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "", "Invalid username or password.")
        if self._path == "/api/repos/create":
            return self._create(json.loads(body))
        if self._path == "/api/validate-yaml":
            header = json.loads(body)["content"].split("---\n")[1]
            assert isinstance(yaml.safe_load(header), dict)
            return {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", self._path):
            repository = Repository(self.root, match[1])
            if unquote(match[2]) in repository.branches:
                raise Refused(409, "", "Reference already exists")
            repository.set_branch(unquote(match[2]), repository.branches["main"])
            return {}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", self._path):
            Repository(self.root, match[1]).commit_of(unquote(match[2]))
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(BY_LFS) else "regular" for path in files}
            return {
                "files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            }
        if self._path.endswith(".git/info/lfs/objects/batch"):
            address = f"http://{self.headers['Host']}/objects/"
            objects = json.loads(body)["objects"]
            actions = [{**entry, "actions": {"upload": {"href": address + entry["oid"]}}} for entry in objects]
            return {"transfer": "basic", "objects": actions}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", self._path):
            lines = [json.loads(line) for line in body.splitlines()]
            commit = Repository(self.root, match[1]).commit(unquote(match[2]), lines, self.root / "objects")
            return {"commitUrl": f"http://{self.headers['Host']}/{match[1]}/commit/{commit}", "commitOid": commit}
        raise Refused(404, "", self._path)

    def _create(self, asked: dict[str, Any]) -> dict[str, str]:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
        repository = Repository(self.root, name)
        address = f"http://{self.headers['Host']}/{name}"
        if repository.folder.is_dir():
            raise Refused(409, "", "You already created this model repo", url=address)
        repository.set_branch("main", "0" * 40)
        return {"url": address}

    def _put(self) -> Any:
        body = self._body()
        name = self._path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != name:
            raise Refused(400, "", "another content than its name says")
        (self.root / "objects").mkdir(exist_ok=True)
        (self.root / "objects" / name).write_bytes(body)
        return {}


if __name__ == "__main__":
    Handler.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()

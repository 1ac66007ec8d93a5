"""A stand-in for the Hugging Face Hub on localhost: the endpoints that a file system of one repository asks for."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = sha1(b"the only commit").hexdigest()
_PATH = re.compile(r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/(revision|paths-info|tree|resolve)/([^/]+)/?(.*))?")


class Hub:
    """Datasets by their ids: a folder each. `tokens` maps those that are gated to the token that opens them."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.tokens: dict[str, str] = {}
        self.asked: list[str] = []
        self.endpoint = ""


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub that answers until the block is left."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, body: bytes) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(path)
            found = _PATH.fullmatch(path)
            folder = hub.folders.get(found[1]) if found else None
            if found is None or folder is None:
                return self._send(401, b"Invalid username or password.", {"X-Error-Code": "RepoNotFound"})
            repo, what, revision, name = found.groups()
            if revision not in (None, "main", COMMIT):
                return self._send(404, b"Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
            if what in (None, "revision"):  # the names of a gated dataset may be seen, its files not
                return self._json({"id": repo, "sha": COMMIT, "siblings": [], "tags": []})
            if what == "paths-info":
                paths = json.loads(body)["paths"]
                return self._json([_entry(folder, p) for p in paths if (folder / p).exists()])
            if what == "tree":
                at, deep = folder / name, "recursive=true" in self.path.lower()
                if not at.exists():
                    return self._send(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
                files = [at] if at.is_file() else at.rglob("*") if deep else at.glob("*")
                return self._json([_entry(folder, str(f.relative_to(folder))) for f in sorted(files)])
            if repo in hub.tokens and self.headers.get("Authorization") != f"Bearer {hub.tokens[repo]}":
                return self._send(403, b"Access to this dataset is restricted.", {"X-Error-Code": "GatedRepo"})
            if not (folder / name).is_file():
                return self._send(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
            content = (folder / name).read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if wanted is None:
                return self._send(200, content)
            return self._send(206, content[int(wanted[1]) : int(wanted[2] or len(content)) + 1])

        def _json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(folder: Path, name: str) -> dict[str, object]:
    path = folder / name
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": sha1(name.encode()).hexdigest(), "size": 0}
    content = path.read_bytes()
    return {"type": "file", "path": name, "oid": sha1(content).hexdigest(), "size": len(content)}

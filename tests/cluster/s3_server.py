"""A real S3 server on localhost, which now and then breaks off uploads, or shows what was written late."""

from __future__ import annotations

import threading
import time
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class S3:
    """The server, with what can happen on the way to it; the bucket `bucket` is there."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self.be_steady()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        keys = {"aws_access_key_id": "somebody", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], **keys).create_bucket(Bucket="bucket")

    def be_steady(self) -> None:
        """Let every request pass as it is."""
        self.break_off, self.after = "", 0  # uploads to such a key, from this one on, lose their connection
        self.stale_seconds = 0.0  # a list shows what it showed so long ago
        self.broken = 0
        self._lists: dict[str, tuple[float, str, list[tuple[str, str]], bytes]] = {}

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        if environ["REQUEST_METHOD"] in ("PUT", "POST") and self.break_off and self.break_off in path:
            self.after -= 1
            if self.after < 0:
                self.broken += 1
                environ["werkzeug.socket"].close()
                raise ConnectionAbortedError(path)
        if environ["REQUEST_METHOD"] == "GET" and "list-type" in query and self.stale_seconds:
            then, status, headers, body = self._lists.get(query, (0.0, "", [], b""))
            if time.monotonic() > then + self.stale_seconds:
                told: list[Any] = []
                body = b"".join(self._app(environ, lambda *words: told.extend(words)))
                status, headers = told[0], told[1]
                self._lists[query] = (time.monotonic(), status, headers, body)
            start_response(status, headers)
            return [body]
        return self._app(environ, start_response)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass

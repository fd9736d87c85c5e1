"""A real server that speaks S3, with a bucket in it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

START_S = 30.0
BUCKET = "gateway-files"


class RunningBucket:
    """moto's server as a process of its own; it asks for no credentials, but every request must be one of S3's."""

    def __init__(self, log: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port: int = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.url = f"s3://{BUCKET}/some/prefix"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": "1048576"},
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert time.monotonic() < deadline, log.read_text()
            assert self._process.poll() is None, log.read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.put(f"{self.endpoint}/{BUCKET}").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def environ(self) -> dict[str, str]:
        """How a program finds it: the usual variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def objects(self) -> str:
        """Return the list of the bucket's objects, as XML."""
        return httpx.get(f"{self.endpoint}/{BUCKET}?list-type=2").text

    def unfinished(self) -> str:
        """Return the list of uploads that were begun and not ended, as XML."""
        return httpx.get(f"{self.endpoint}/{BUCKET}?uploads").text

    def stop(self) -> None:
        """End the server."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@contextmanager
def run_bucket(folder: Path) -> Iterator[RunningBucket]:
    """Give a bucket that the variables of this process point to."""
    bucket = RunningBucket(folder / "bucket.log")
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in bucket.environ.items():
                patch.setenv(name, value)
            yield bucket
    finally:
        bucket.stop()

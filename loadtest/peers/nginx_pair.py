"""nginx, and the Redis that it needs, as one process that ends them together."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import FrameType


def main(folder: str, redis_port: str, fsync: str) -> None:
    """Run both until SIGTERM."""
    children: list[subprocess.Popen[bytes]] = []

    def stop(_number: int, _frame: FrameType | None) -> None:
        for child in reversed(children):
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    if redis_port != "0":
        options = ["--port", redis_port, "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        children.append(subprocess.Popen(["redis-server", *options, "--appendonly", "yes", "--appendfsync", fsync]))
        time.sleep(0.5)
    children.append(subprocess.Popen(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"]))
    for child in children:
        child.wait()


if __name__ == "__main__":
    main(*sys.argv[1:4])

"""A real nginx before a gateway, where it is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
START_S = 30.0

GOOD = """
client_max_body_size 0;
proxy_http_version 1.1;
proxy_buffering off;
proxy_request_buffering off;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $http_connection;
"""
BAD = """
gzip on;
gzip_types text/event-stream;
gzip_proxied any;
gzip_min_length 0;
proxy_ignore_headers X-Accel-Buffering;
proxy_set_header Lease "";
proxy_read_timeout 1s;
"""


@contextmanager
def before(port: int, folder: Path, directives: str) -> Iterator[str]:
    """Run an nginx that passes everything on to `port` as `directives` say, and yield its URL."""
    assert NGINX is not None
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        own = free.getsockname()[1]
    places = "".join(f"{name}_temp_path {folder}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    config = folder / "nginx.conf"
    config.write_text(f"""
        daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
        events {{}}
        http {{
            access_log off; client_body_temp_path {folder}/body; {places}
            server {{
                listen 127.0.0.1:{own};
                {directives}
                location / {{ proxy_pass http://127.0.0.1:{port}; }}
            }}
        }}
    """)
    with (folder / "said.log").open("wb") as said:
        process = subprocess.Popen(
            [NGINX, "-c", str(config), "-e", str(folder / "error.log")], stdout=said, stderr=said
        )
    try:
        _wait_listening(own, process, folder)
        yield f"http://127.0.0.1:{own}"
    finally:
        process.terminate()
        process.wait(START_S)


def _wait_listening(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        assert process.poll() is None, (folder / "said.log").read_text() + (folder / "error.log").read_text()
        assert time.monotonic() < deadline_s, "nginx does not listen"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return

"""nginx with nchan, a pub/sub server in C: with its memory store, or with a Redis of its own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

CONFIG = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 40000;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 1h;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_max_body_size 8m;
  client_body_buffer_size 1m;
  nchan_message_buffer_length 200000;
  nchan_message_timeout 1h;
  nchan_max_reserved_memory 512M;
  {upstream}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /readyz {{ return 200 "{{}}"; }}
    location ~ ^/v1/runs/(\\w+)/stream$ {{
      nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message oldest; {passing}
    }}
    location ~ ^/v1/runs/(\\w+)/events$ {{ nchan_publisher; nchan_channel_id $1; {passing} }}
  }}
}}
"""


def is_installed() -> bool:
    """Whether Debian's nginx and libnginx-mod-nchan, or their like, are there."""
    return shutil.which("nginx") is not None and MODULE.exists()


def command(folder: Path, port: int, *, redis_port: int | None, fsync: str) -> list[str]:
    """Return what runs nginx, with a Redis beside it if it has a port."""
    upstream = passing = ""
    if redis_port is not None:
        upstream = f"upstream store {{ nchan_redis_server 127.0.0.1:{redis_port}; }}"
        passing = "nchan_redis_pass store;"
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(module=MODULE, folder=folder, port=port, upstream=upstream, passing=passing))
    arguments = [str(folder), str(redis_port or 0), fsync]
    return [sys.executable, "-m", "loadtest.peers.nginx_pair", *arguments]

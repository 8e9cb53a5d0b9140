"""nginx as a plain reverse proxy: it reads no body and keeps no record, so it is the floor, not a rival."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.gateway.arms import HttpArm
from benchmarks.gateway.peers.install import debian_program
from benchmarks.gateway.process import Cores, free_port, program

_CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  upstream engine {{ server {engine}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path, engine: str, cores: Cores) -> AsyncIterator[list[HttpArm]]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, engine=engine.removeprefix("http://")))
    argv = [str(debian_program("nginx")), "-p", str(folder), "-c", str(config)]
    with program(argv, cores.tested, folder / "nginx.log") as process:
        arm = HttpArm("nginx", f"http://127.0.0.1:{port}/v1", process)
        await arm.until_answered()
        yield [arm]

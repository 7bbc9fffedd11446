"""Fetches published checkpoints into a cache folder, once, whole and unchanged.

Written on ``urllib`` because pooch, the usual choice, neither resumes a cut transfer nor works without a checksum
known beforehand, and FAIR has published none. Here the sha256 of a file is recorded when it first arrives complete,
in ``checksums.json`` of the cache folder, and enforced from then on.

Environment variables, each overridden by the argument of the same meaning: ``ESCN_CACHE_DIR`` (folder),
``ESCN_MIRROR`` (base address that replaces FAIR's), ``ESCN_OFFLINE`` (1, true or yes: never open a connection).
"""

import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import platformdirs
from filelock import FileLock, Timeout

from escn_calc.checkpoints.catalogue import BASE_URL, CatalogueEntry
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.errors import CheckpointError, DownloadError, InputError

CHECKSUMS = "checksums.json"
ATTEMPTS = 5
"""Connections in a row that may end without a single new byte."""
RETRY_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
"""Most that a server's Retry-After is honoured."""
BUSY = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE)
TIMEOUT_SECONDS = 30.0
LOCK_TIMEOUT_SECONDS = 3600.0
PIECE_BYTES = 2**18

Show = Callable[[int, int | None], None]
"""Called with the bytes present and the bytes in all, None if that is not known."""


@dataclass(frozen=True)
class CachedFile:
    """A complete file in the cache and the digest recorded for it."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class _Part:
    """An unfinished transfer: its bytes, and a small JSON file that says which version of the file they are of."""

    path: Path

    @property
    def memo(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str:
        """Return the ETag or date under which the bytes were sent from ``url``; empty if that is not known."""
        try:
            memo = json.loads(self.memo.read_text(encoding="utf-8"))
            return str(memo["validator"]) if memo["url"] == url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def restart(self, url: str, validator: str) -> None:
        """Forget all bytes and remember which version comes next."""
        self.path.write_bytes(b"")
        self.memo.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.memo.unlink(missing_ok=True)


class _GivenUpError(Exception):
    """A transfer has failed for good; the message is the reason."""


def default_cache_dir() -> Path:
    """Return the folder of downloaded checkpoints: ``ESCN_CACHE_DIR``, else the user's cache folder."""
    chosen = os.environ.get("ESCN_CACHE_DIR")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("escn-calc"))


def cached_path(entry: CatalogueEntry, cache_dir: str | Path | None = None) -> Path:
    """Return where the file of ``entry`` is kept, whether or not it is there."""
    return Path(cache_dir or default_cache_dir()) / f"{entry.name}.pt"


def fetch(
    entry: CatalogueEntry,
    *,
    cache_dir: str | Path | None = None,
    mirror: str | None = None,
    offline: bool | None = None,
) -> CachedFile:
    """Return the file of a catalogue entry, downloading it if it is not in the cache.

    A cut transfer is resumed, in this call or a later one; the final name appears only when the file is complete.
    Before a checksum is recorded, for a new download or for a file put there by hand, the file is read and must be
    the network the catalogue describes.
    Several processes may call this at once: one downloads, the others wait.

    Parameters
    ----------
    entry : what to fetch.
    cache_dir : folder of the cache; default ``ESCN_CACHE_DIR`` or the user's cache folder.
    mirror : http(s) address below which the server's paths are found; default ``ESCN_MIRROR`` or FAIR's server.
    offline : never open a connection; default ``ESCN_OFFLINE``.

    Raises
    ------
    DownloadError
        If the file cannot be had, or is not what was recorded for it.
    CheckpointError
        If a file put there by hand is not the published network.
    InputError
        If ``mirror`` is not an http(s) address.
    """
    path, url = cached_path(entry, cache_dir), _address(entry, mirror)
    if _is_offline(offline) and not path.exists():
        raise DownloadError(
            f"{entry.name} is not in the cache and offline mode is on; fetch it on another machine from {url} "
            f"and put it at {path}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock"), timeout=LOCK_TIMEOUT_SECONDS):
            if not path.exists():
                _download(entry, path, url)
            elif recorded_sha256(path) is None:
                _require_network(entry, path)
            return CachedFile(path, _recorded_or_new(path))
    except Timeout as error:
        raise DownloadError(
            f"another process has been fetching {entry.name} for an hour; end it and try again"
        ) from error
    except OSError as error:
        raise DownloadError(
            f"cannot write to {path.parent}: {error}; choose another folder with ESCN_CACHE_DIR"
        ) from error


def recorded_sha256(path: Path) -> str | None:
    """Return the digest recorded for a file of the cache; None if it has never been complete."""
    return _read_checksums(path.parent).get(path.name)


def _download(entry: CatalogueEntry, path: Path, url: str) -> None:
    part = _Part(path.with_name(path.name + ".part"))
    try:
        _transfer(url, part)
    except _GivenUpError as error:
        kept = f"; {part.length} bytes are kept in {part.path}" if part.length else ""
        raise DownloadError(
            f"{url}: {error}{kept}; try again later, name another server (--mirror, ESCN_MIRROR), or put the file at "
            f"{path}"
        ) from error
    try:
        _require_network(entry, part.path)
    except CheckpointError as error:
        part.discard()
        raise DownloadError(f"{url}: what the server sent is not {entry.name} and was not kept: {error}") from error
    found, recorded = file_sha256(part.path), recorded_sha256(path)
    if recorded not in (None, found):
        part.discard()
        raise DownloadError(
            f"{url} now has sha256 {found}, but {recorded} was recorded in {path.parent / CHECKSUMS} when it was first "
            "fetched; it was not kept. If you trust the new file, remove the entry there"
        )
    os.replace(part.path, path)
    part.discard()


def _transfer(url: str, part: _Part) -> None:
    """Bring all bytes of ``url`` into ``part``, reconnecting where the transfer was cut."""
    idle = 0
    with _progress_bar(part.path.name.removesuffix(".part")) as show:
        while True:
            before, wait = part.length, 0.0
            try:
                if _continue(url, part, show):
                    return
                problem = "the connection was cut"
            except urllib.error.HTTPError as error:
                problem = f"the server answered {error.code} {error.reason}"
                if error.code in BUSY:
                    wait = _retry_after(error)
                elif error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                    part.discard()
                else:
                    raise _GivenUpError(problem) from error
            except urllib.error.URLError as error:
                problem = str(error.reason) or type(error.reason).__name__
            except http.client.HTTPException as error:
                problem = str(error) or type(error).__name__
            idle = 0 if part.length > before else idle + 1
            if idle >= ATTEMPTS:
                raise _GivenUpError(problem)
            time.sleep(max(RETRY_SECONDS * idle, wait))


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Return the seconds a busy server asks to wait, at most the longest wait; 0 for none, or for a date."""
    asked = error.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT_SECONDS) if re.fullmatch(r"\d+", asked) else 0.0


def _continue(url: str, part: _Part, show: Show) -> bool:
    """Make one request for what ``part`` lacks; return True if it is complete then."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "escn-calc"}
    validator = part.validator(url)
    if part.length and validator:
        headers |= {"Range": f"bytes={part.length}-", "If-Range": validator}
    with _open(url, headers) as response:
        _require_binary(url, response.headers.get_content_type())
        start, total = _extent(url, response)
        if start == 0:
            part.restart(url, _validator_of(response.headers))
        elif start != part.length:
            raise DownloadError(f"{url}: asked to resume at byte {part.length}, the server sent from byte {start}")
        _require_space(part.path, total, start)
        with part.path.open("ab") as stream:
            while piece := _next_piece(response):
                stream.write(piece)
                show(stream.tell(), total)
            stream.flush()
            os.fsync(stream.fileno())
    return total is None or part.length == total


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    with _network_errors():
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS
        )
        return response


def _next_piece(response: http.client.HTTPResponse) -> bytes:
    with _network_errors():
        return response.read(PIECE_BYTES)


@contextmanager
def _network_errors() -> Iterator[None]:
    """Make every failure of the network a URLError: what a socket raises is OSError, as for a failure of the disk."""
    try:
        yield
    except urllib.error.URLError:
        raise
    except OSError as error:
        raise urllib.error.URLError(error) from error


def _extent(url: str, response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Return the first byte this response brings and the length of the whole file, None if not announced."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        content_range = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
        if match is None:
            raise DownloadError(f"{url}: the server resumed with the unreadable Content-Range {content_range!r}")
        return int(match[1]), int(match[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None else None


def _validator_of(headers: http.client.HTTPMessage) -> str:
    """Return a strong ETag, else the modification date: what ``If-Range`` accepts."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _require_binary(url: str, content_type: str) -> None:
    if content_type in ("text/html", "application/xhtml+xml"):
        raise DownloadError(
            f"{url}: the server sent a page ({content_type}), not a file; is a proxy or login in the way?"
        )


def _require_network(entry: CatalogueEntry, path: Path) -> None:
    """Refuse a page, a truncated or hostile file, or another network: they must not get a recorded checksum."""
    from escn_calc.checkpoints.fair import read_fair

    read_fair(path, entry=entry)


def _require_space(path: Path, total: int | None, present: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if total is not None and total - present > free:
        raise DownloadError(f"{total - present} bytes are needed in {path.parent}, {free} are free")


def _address(entry: CatalogueEntry, mirror: str | None) -> str:
    base = mirror or os.environ.get("ESCN_MIRROR") or BASE_URL
    if urlsplit(base).scheme not in ("http", "https"):
        raise InputError(f"the mirror {base!r} is not an http or https address")
    return base.rstrip("/") + "/" + quote(entry.path)


def _is_offline(offline: bool | None) -> bool:
    if offline is not None:
        return offline
    return os.environ.get("ESCN_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def _recorded_or_new(path: Path) -> str:
    """Return the digest recorded for a complete file; record it now if this is its first use."""
    recorded = recorded_sha256(path)
    if recorded is not None:
        return recorded
    with FileLock(path.with_name(CHECKSUMS + ".lock"), timeout=LOCK_TIMEOUT_SECONDS):
        checksums = {**_read_checksums(path.parent), path.name: file_sha256(path)}
        draft = path.with_name(f".{CHECKSUMS}.{uuid.uuid4().hex}")
        draft.write_text(json.dumps(checksums, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(draft, path.with_name(CHECKSUMS))
    return checksums[path.name]


def _read_checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    try:
        checksums = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in checksums.items()}
    except (ValueError, AttributeError) as error:
        raise DownloadError(f"{path} is damaged ({error}); remove it to record all checksums anew") from error


@contextmanager
def _progress_bar(title: str) -> Iterator[Show]:
    """Show a bar on standard error while that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

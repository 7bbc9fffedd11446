"""Downloads against a local server that cuts, lies and refuses on command."""

import errno
import http.client
import io
import json
import multiprocessing
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from escn_calc.checkpoints import download
from escn_calc.checkpoints.catalogue import CATALOGUE
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.checkpoints.download import default_cache_dir, fetch, recorded_sha256
from escn_calc.checkpoints.fair import read_fair
from escn_calc.errors import CheckpointError, DownloadError, InputError
from tests.checkpoints.conftest import PARITY, load_content

FILE = PARITY / "l4m2" / "checkpoint.pt"
ENTRY = replace(CATALOGUE["eSCN-L6-M2-Lay12-S2EF-OC20-All+MD"], config=asdict(read_fair(FILE).config))
"""A published model, whose place a small file takes."""


@dataclass
class Server:
    """What the server does; tests change it, also between requests."""

    body: bytes
    etag: str = '"v1"'
    status: int = 200
    retry_after: str = ""
    content_type: str = "application/octet-stream"
    cut_after: list[int] = field(default_factory=list)
    """Bytes to send in each coming answer before the connection is closed; empty: all."""
    ranges: bool = True
    length: int | None = None
    """Announced length if not the true one; negative: none."""
    content_range: str | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    before_answer: Callable[["Server"], None] = lambda server: None
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    server_state: Server

    def do_GET(self):
        server = self.server_state
        server.before_answer(server)
        server.requests.append({"path": self.path, **self.headers})
        if server.status != 200:
            self.send_response(server.status)
            if server.retry_after:
                self.send_header("Retry-After", server.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start(server)
        if start > len(server.body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.content_type)
        if server.etag:
            self.send_header("ETag", server.etag)
        if start:
            total = len(server.body)
            self.send_header("Content-Range", server.content_range or f"bytes {start}-{total - 1}/{total}")
        rest = server.body[start:]
        length = len(rest) if server.length is None else server.length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(rest[: server.cut_after.pop(0)] if server.cut_after else rest)

    def _start(self, server: Server) -> int:
        wanted = self.headers.get("Range")
        if not wanted or not server.ranges or self.headers.get("If-Range") != server.etag:
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def log_message(self, *_):
        """Stay silent."""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    state = Server(body=FILE.read_bytes())
    handler = type("BoundHandler", (Handler,), {"server_state": state})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.address = f"http://127.0.0.1:{httpd.server_port}/mirror/"
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(download, "RETRY_SECONDS", 0.0)
    for name in ("ESCN_CACHE_DIR", "ESCN_MIRROR", "ESCN_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield state
    httpd.shutdown()
    httpd.server_close()


def get(server: Server, folder: Path) -> download.CachedFile:
    return fetch(ENTRY, cache_dir=folder, mirror=server.address)


@pytest.fixture
def other() -> bytes:
    """A file of the same network with other weights."""
    content, stream = load_content("l4m2"), io.BytesIO()
    content["state_dict"] = {key: value * 2 for key, value in content["state_dict"].items()}
    torch.save(content, stream)
    return stream.getvalue()


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The waits that were asked for, none of them made."""
    asked: list[float] = []
    monkeypatch.setattr("time.sleep", asked.append)
    return asked


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_first_fetch_stores_and_records(server, tmp_path):
    file = get(server, tmp_path / "new" / "cache")
    assert file.path.read_bytes() == server.body
    assert file.sha256 == file_sha256(file.path) == recorded_sha256(file.path)
    assert names(file.path.parent) == ["checksums.json", f"{ENTRY.name}.pt"]
    assert server.requests[0]["path"] == f"/mirror/{ENTRY.path}"


def test_second_fetch_needs_no_connection(server, tmp_path):
    first = get(server, tmp_path)
    assert fetch(ENTRY, cache_dir=tmp_path, mirror=server.address, offline=True) == first
    assert len(server.requests) == 1


def test_cut_transfers_are_resumed_where_they_stopped(server, tmp_path):
    server.cut_after = [1000, 50_000]
    assert get(server, tmp_path).path.read_bytes() == server.body
    assert [request.get("Range") for request in server.requests] == [None, "bytes=1000-", "bytes=51000-"]
    assert server.requests[1]["If-Range"] == '"v1"'


def test_a_later_call_resumes_too(server, tmp_path):
    server.cut_after = [70_000] + [0] * download.ATTEMPTS
    with pytest.raises(DownloadError, match=r"was cut; 70000 bytes are kept in .*\.pt\.part; try again later"):
        get(server, tmp_path)
    assert not (tmp_path / f"{ENTRY.name}.pt").exists()
    server.cut_after, server.requests = [], []
    assert get(server, tmp_path).path.read_bytes() == server.body
    assert server.requests[0]["Range"] == "bytes=70000-"
    assert names(tmp_path) == ["checksums.json", f"{ENTRY.name}.pt"]


def test_file_that_changes_between_two_parts_is_fetched_anew(server, tmp_path, other):
    def change(state):
        if len(state.requests) == 1:
            state.body, state.etag = other, '"v2"'

    server.cut_after, server.before_answer = [1000], change
    assert get(server, tmp_path).path.read_bytes() == other


def test_server_without_ranges(server, tmp_path):
    server.cut_after, server.ranges = [1000, 2000], False
    assert get(server, tmp_path).path.read_bytes() == server.body


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_reliable_version_a_part_is_not_continued(server, tmp_path, etag):
    server.cut_after, server.etag = [1000], etag
    assert get(server, tmp_path).path.read_bytes() == server.body
    assert "Range" not in server.requests[1]


def test_part_of_another_address_is_not_continued(server, tmp_path):
    part = tmp_path / f"{ENTRY.name}.pt.part"
    part.write_bytes(b"x" * 100)
    part.with_name(part.name + ".json").write_text(json.dumps({"url": "http://elsewhere/", "validator": '"v1"'}))
    assert get(server, tmp_path).path.read_bytes() == server.body
    assert "Range" not in server.requests[0]


def test_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    server.cut_after = [1000] + [0] * download.ATTEMPTS
    with pytest.raises(DownloadError, match="try again later"):
        get(server, tmp_path)
    with (tmp_path / f"{ENTRY.name}.pt.part").open("ab") as stream:
        stream.write(bytes(len(server.body)))
    server.cut_after = []
    assert get(server, tmp_path).path.read_bytes() == server.body


@pytest.mark.parametrize("content_range", ["bytes 5-9/10", "nonsense"])
def test_server_that_resumes_elsewhere(server, tmp_path, content_range):
    server.cut_after, server.content_range = [1000], content_range
    with pytest.raises(DownloadError, match=r"asked to resume at byte 1000, .* from byte 5|unreadable Content-Range"):
        get(server, tmp_path)


@pytest.mark.parametrize(("status", "match"), [(404, "answered 404 Not Found"), (500, "answered 500 "), (416, "416")])
def test_http_errors(server, tmp_path, status, match):
    server.status = status
    with pytest.raises(DownloadError, match=match):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_page_by_its_type(server, tmp_path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match=r"the server sent a page \(text/html\)"):
        get(server, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "match"),
    [(b"<html>login</html>", "is an HTML or XML page"), (b"", "is empty"), (b"PK\x03\x04", "truncated")],
)
def test_bodies_that_are_no_checkpoint_are_not_kept(server, tmp_path, body, match):
    server.body = body
    with pytest.raises(DownloadError, match=f"is not {re.escape(ENTRY.name)} and was not kept: .*{match}"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_another_network_from_a_mirror_is_neither_kept_nor_recorded(server, tmp_path):
    server.body = (PARITY / "l6m2" / "checkpoint.pt").read_bytes()
    with pytest.raises(DownloadError, match=r"was not kept: .*not that of the published .*lmax_list is \(6,"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_announced_length_that_never_comes(server, tmp_path):
    server.length, server.ranges = len(server.body) + 10, False
    with pytest.raises(DownloadError, match="the connection was cut; 262238 bytes are kept"):
        get(server, tmp_path)
    assert f"{ENTRY.name}.pt" not in names(tmp_path)


def test_announced_length_that_is_too_short_is_not_recorded(server, tmp_path):
    server.length = len(server.body) - 10
    with pytest.raises(DownloadError, match="truncated or damaged zip archive"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_no_announced_length(server, tmp_path):
    server.length = -1
    assert get(server, tmp_path).path.read_bytes() == server.body


def test_recorded_checksum_is_enforced_on_a_new_download(server, tmp_path, other):
    file = get(server, tmp_path)
    file.path.unlink()
    server.body = other
    with pytest.raises(DownloadError, match=rf"now has sha256 [0-9a-f]{{64}}, but {file.sha256} was recorded"):
        get(server, tmp_path)
    assert names(tmp_path) == ["checksums.json"]


def test_file_put_there_by_hand_is_recorded(server, tmp_path):
    (tmp_path / f"{ENTRY.name}.pt").write_bytes(server.body)
    assert get(server, tmp_path).sha256 == recorded_sha256(tmp_path / f"{ENTRY.name}.pt")
    assert server.requests == []


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_record(server, tmp_path, text):
    get(server, tmp_path)
    (tmp_path / "checksums.json").write_text(text)
    with pytest.raises(DownloadError, match=r"checksums\.json is damaged .* remove it"):
        get(server, tmp_path)


def test_another_file_put_there_by_hand_is_not_recorded(server, tmp_path):
    (tmp_path / f"{ENTRY.name}.pt").write_bytes((PARITY / "l6m2" / "checkpoint.pt").read_bytes())
    with pytest.raises(CheckpointError, match="not that of the published"):
        get(server, tmp_path)
    assert names(tmp_path) == [f"{ENTRY.name}.pt"]


def test_environment_variables(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ESCN_CACHE_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("ESCN_MIRROR", server.address)
    monkeypatch.setenv("ESCN_OFFLINE", "yes")
    with pytest.raises(DownloadError, match=rf"offline mode is on; fetch it on another machine from {server.address}"):
        fetch(ENTRY)
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.setenv("ESCN_OFFLINE", "0")
    assert fetch(ENTRY).path.parent == tmp_path / "elsewhere"
    monkeypatch.delenv("ESCN_CACHE_DIR")
    assert default_cache_dir().name == "escn-calc"


def test_argument_offline_wins_over_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ESCN_OFFLINE", "1")
    assert fetch(ENTRY, cache_dir=tmp_path, mirror=server.address, offline=False).path.exists()


@pytest.mark.parametrize("mirror", ["ftp://x/", "/srv/models", "file:///srv"])
def test_mirrors_are_web_addresses(tmp_path, mirror):
    with pytest.raises(InputError, match="is not an http or https address"):
        fetch(ENTRY, cache_dir=tmp_path, mirror=mirror)


def test_nobody_listens(tmp_path, naps):
    with pytest.raises(DownloadError) as caught:
        fetch(ENTRY, cache_dir=tmp_path, mirror="http://127.0.0.1:9/")
    message = str(caught.value)
    assert "refused; try again later, name another server (--mirror, ESCN_MIRROR), or put the file at" in message
    assert message.endswith(f"{ENTRY.name}.pt")
    assert "urlopen" not in message
    assert "kept" not in message
    assert naps == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(server, tmp_path, naps, status):
    def recover(state):
        if len(state.requests) == 2:
            state.status = 200

    server.status, server.retry_after, server.before_answer = status, "7", recover
    assert get(server, tmp_path).path.read_bytes() == server.body
    assert naps == [7.0, 7.0]


@pytest.mark.parametrize(
    ("retry_after", "wait"), [("86400", download.LONGEST_WAIT_SECONDS), ("Wed, 21 Oct 2099 07:28:00 GMT", 0), ("", 0)]
)
def test_a_server_that_stays_busy_is_given_up(server, tmp_path, naps, retry_after, wait):
    server.status, server.retry_after = 503, retry_after
    with pytest.raises(DownloadError, match="the server answered 503 Service Unavailable; try again later, name"):
        get(server, tmp_path)
    assert len(server.requests) == download.ATTEMPTS
    assert naps == [wait] * 4


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (ssl.SSLError(1, "decryption failed"), "decryption failed"),
        (ConnectionResetError(errno.ECONNRESET, "reset by peer"), "reset by peer"),
        (TimeoutError(), "TimeoutError"),
        (OSError(errno.ENETDOWN, "network is down"), "network is down"),
    ],
)
def test_a_network_that_fails_while_reading_is_not_taken_for_the_disk(server, tmp_path, monkeypatch, error, match):
    def fail(*_):
        raise error

    monkeypatch.setattr("http.client.HTTPResponse.read", fail)
    with pytest.raises(DownloadError, match=rf"^{server.address}.*: .*{match}; try again later") as caught:
        get(server, tmp_path)
    assert "cannot write" not in str(caught.value)


def test_an_answer_that_is_no_http(server, tmp_path, monkeypatch):
    def fail(*_):
        raise http.client.IncompleteRead(b"xy")

    monkeypatch.setattr("http.client.HTTPResponse.read", fail)
    with pytest.raises(DownloadError, match=r"IncompleteRead\(2 bytes read\); try again later"):
        get(server, tmp_path)


def test_too_little_space_is_found_before_the_transfer(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"262238 bytes are needed in .*, 1000 are free"):
        get(server, tmp_path)


def test_disk_that_fills_up_leaves_no_file_of_the_final_name(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DownloadError, match=r"cannot write to .*No space left.*another folder with ESCN_CACHE_DIR"):
        get(server, tmp_path)
    assert f"{ENTRY.name}.pt" not in names(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(download, "RETRY_SECONDS", 0.0)
    assert get(server, tmp_path).path.read_bytes() == server.body


def test_cache_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot write to"):
        get(server, tmp_path / "file" / "cache")


def test_waiting_for_another_process_ends(server, tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(download, "LOCK_TIMEOUT_SECONDS", 0.01)
    with (
        FileLock(tmp_path / f"{ENTRY.name}.pt.lock"),
        pytest.raises(DownloadError, match="another process has been fetching"),
    ):
        get(server, tmp_path)


def _fetch_in_process(address: str, folder: Path) -> str:
    return fetch(ENTRY, cache_dir=folder, mirror=address).sha256


def test_processes_at_once_download_once(server, tmp_path):
    server.cut_after = [100_000]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        digests = pool.starmap(_fetch_in_process, [(server.address, tmp_path)] * 3)
    assert set(digests) == {file_sha256(tmp_path / f"{ENTRY.name}.pt")}
    assert len(server.requests) == 2

"""Fetching public traces, from a server of our own: whole, continued, checked, and failing.

No test leaves the machine.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sim.cli import main
from sim.errors import InputError
from sim.trace import download, fetch, public_sets
from sim.trace.download import Limits
from sim.trace.names import FORMATS
from sim.trace.public_sets import SETS, PublicSet

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = b"arrived_at,num_prefill_tokens,num_decode_tokens\n" + b"".join(
    b"%d,%d,7\n" % (i, 100 + i) for i in range(20000)
)
DIGEST = hashlib.sha256(BODY).hexdigest()
QUICK = Limits(timeout_s=0.3, attempts=1, pause_s=0.0)


@dataclass
class Behaviour:
    """How the server answers, and the requests that it has seen."""

    body: bytes = BODY
    etag: str | None = '"one"'
    changed: str | None = None
    ranges: bool = True
    length: bool = True
    cut: list[int] = field(default_factory=list)
    """Bytes of the body after which the connection is closed, one for each answer."""
    wait_s: float = 0.0
    status: int = 200
    sent_on: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        how = self.behaviour
        how.seen.append(dict(self.headers))
        how.paths.append(self.path)
        if how.sent_on:
            self.send_response(302)
            self.send_header("Location", how.sent_on.pop(0))
            self.end_headers()
            return
        if how.status != 200:
            self.send_error(how.status)
            return
        start, wanted = 0, self.headers.get("Range")
        valid = self.headers.get("If-Range") in (None, how.etag, how.changed)
        if wanted and how.ranges and valid:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(how.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(how.body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            last = len(how.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(how.body)}")
        if how.length:
            self.send_header("Content-Length", str(len(how.body) - start))
        for key, value in (("ETag", how.etag), ("Last-Modified", how.changed)):
            if value is not None:
                self.send_header(key, value)
        for key, value in how.headers.items():
            self.send_header(key, value)
        self.end_headers()
        stop = how.cut.pop(0) if how.cut else len(how.body)
        self.wfile.write(how.body[start:stop])
        self.wfile.flush()
        time.sleep(how.wait_s)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    """A server at `SETS["local"]`, as it is told to behave."""
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    how = Behaviour()
    own = type("Own", (Handler,), {"behaviour": how})
    with ThreadingHTTPServer(("127.0.0.1", 0), own) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{http.server_port}/data/t.csv"
        local = PublicSet(
            "local", "a trace of ours", "vidur", "http://here/page", "CC0", "t.csv", url,
            "commit 0", len(BODY), DIGEST, "measured here",
        )  # fmt: skip
        monkeypatch.setitem(SETS, "local", local)
        yield how
        http.shutdown()
        thread.join()


def get(folder: Path, limits: Limits = QUICK, unverified: bool = False, **changes: Any) -> str:
    one = replace(SETS["local"], **changes)
    path, checked = fetch.fetch(
        one,
        folder,
        lambda size: None,
        lambda have, size: None,
        unverified=unverified,
        limits=limits,
    )
    assert path == folder / "t.csv"
    return checked


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- well
def test_whole(server: Behaviour, tmp_path: Path) -> None:
    checked = get(tmp_path)
    assert (tmp_path / "t.csv").read_bytes() == BODY
    assert checked == f"SHA-256 {DIGEST}: as it should be (measured here)"
    assert files(tmp_path) == ["t.csv", "t.csv.origin.json"]
    note = json.loads((tmp_path / "t.csv.origin.json").read_text())
    assert (note["sha256"], note["bytes"], note["licence"]) == (DIGEST, len(BODY), "CC0")
    assert note["etag"] == '"one"'
    (headers,) = server.seen
    assert headers["User-Agent"].startswith("residentsim/")
    assert "Range" not in headers
    assert "Authorization" not in headers


def test_there_already_is_checked_and_not_fetched(server: Behaviour, tmp_path: Path) -> None:
    get(tmp_path)
    assert "was there already" in get(tmp_path)
    assert len(server.seen) == 1
    (tmp_path / "t.csv").write_bytes(BODY + b"x")
    with pytest.raises(InputError, match=r"was there already, with SHA-256 \w+, not \w+"):
        get(tmp_path)
    assert "nothing to check" in get(tmp_path, sha256=None, url="http://127.0.0.1:1/x")


def test_a_cut_is_continued_in_the_next_run(server: Behaviour, tmp_path: Path) -> None:
    server.cut = [100_000]
    with pytest.raises(InputError, match=r"ended after 100,000 of .* \(100,000 bytes are kept"):
        get(tmp_path)
    assert files(tmp_path) == ["t.csv.part", "t.csv.part.json"]
    get(tmp_path)
    assert (tmp_path / "t.csv").read_bytes() == BODY
    assert server.seen[1]["Range"] == "bytes=100000-"
    assert server.seen[1]["If-Range"] == '"one"'
    assert files(tmp_path) == ["t.csv", "t.csv.origin.json"]


def test_a_cut_is_continued_at_once_as_long_as_something_comes(
    server: Behaviour, tmp_path: Path
) -> None:
    server.cut = [100_000, 150_000]
    get(tmp_path, limits=replace(QUICK, attempts=3))
    assert [h.get("Range") for h in server.seen] == [None, "bytes=100000-", "bytes=150000-"]
    assert (tmp_path / "t.csv").read_bytes() == BODY


def test_a_server_without_ranges_sends_it_again(server: Behaviour, tmp_path: Path) -> None:
    server.cut, server.ranges = [100_000], False
    with pytest.raises(InputError):
        get(tmp_path)
    get(tmp_path)
    assert (tmp_path / "t.csv").read_bytes() == BODY


@pytest.mark.parametrize("by", ["etag", "changed"])
def test_a_file_that_changed_meanwhile_starts_over(
    server: Behaviour, tmp_path: Path, by: str
) -> None:
    server.etag, server.changed = None, "Mon, 01 Jan 2024 00:00:00 GMT"
    if by == "etag":
        server.etag, server.changed = '"one"', None
    server.cut, server.body = [100_000], b"x" * len(BODY)
    with pytest.raises(InputError):
        get(tmp_path)
    setattr(server, by, '"two"')
    server.body = BODY
    get(tmp_path)
    assert (tmp_path / "t.csv").read_bytes() == BODY


@pytest.mark.parametrize(("digest", "asks"), [(DIGEST, True), (None, False)])
def test_without_a_validator_only_a_digest_allows_to_continue(
    server: Behaviour, tmp_path: Path, digest: str | None, asks: bool
) -> None:
    server.etag, server.cut = 'W/"weak"', [100_000]
    with pytest.raises(InputError):
        get(tmp_path, sha256=digest)
    get(tmp_path, sha256=digest)
    assert ("Range" in server.seen[1]) is asks
    assert "If-Range" not in server.seen[1]
    assert (tmp_path / "t.csv").read_bytes() == BODY


def test_a_part_of_another_address_is_not_continued(server: Behaviour, tmp_path: Path) -> None:
    server.cut = [100_000]
    with pytest.raises(InputError):
        get(tmp_path, url=str(SETS["local"].url) + "?old")
    get(tmp_path)
    assert "Range" not in server.seen[1]


@pytest.mark.parametrize("size", [len(BODY), None])
def test_cut_off_after_the_last_byte(server: Behaviour, tmp_path: Path, size: int | None) -> None:
    get(tmp_path)
    (tmp_path / "t.csv").rename(tmp_path / "t.csv.part")
    notes = {"url": SETS["local"].url, "validator": '"one"'}
    (tmp_path / "t.csv.part.json").write_text(json.dumps(notes))
    get(tmp_path, size_bytes=size)
    assert len(server.seen) == (1 if size else 2)
    assert (tmp_path / "t.csv").read_bytes() == BODY


@pytest.mark.parametrize("notes", ["", "{", "[]", "[" * 100_000, '{"url": 3}', "\0"])
def test_broken_notes_start_over(server: Behaviour, tmp_path: Path, notes: str) -> None:
    (tmp_path / "t.csv.part").write_bytes(b"garbage")
    (tmp_path / "t.csv.part.json").write_text(notes)
    get(tmp_path)
    assert (tmp_path / "t.csv").read_bytes() == BODY
    assert "Range" not in server.seen[0]


def test_a_server_that_says_no_length(server: Behaviour, tmp_path: Path) -> None:
    server.length = False
    get(tmp_path)
    assert (tmp_path / "t.csv").read_bytes() == BODY


def test_redirects_are_followed_with_the_range(server: Behaviour, tmp_path: Path) -> None:
    server.cut = [100_000]
    with pytest.raises(InputError):
        get(tmp_path)
    server.sent_on = ["/elsewhere/t.csv", "/there/t.csv"]
    get(tmp_path)
    assert server.paths[1:] == ["/data/t.csv", "/elsewhere/t.csv", "/there/t.csv"]
    assert server.seen[-1]["Range"] == "bytes=100000-"


def test_a_digest_that_nobody_knew_is_checked_the_next_time(
    server: Behaviour, tmp_path: Path
) -> None:
    unknown = {"sha256": None, "size_bytes": None, "told_by": ""}
    assert "nothing to check it against; noted" in get(tmp_path, **unknown)
    assert "as fetched before" in get(tmp_path, **unknown)
    (tmp_path / "t.csv").unlink()
    assert "as fetched before" in get(tmp_path, **unknown)
    (tmp_path / "t.csv").unlink()
    server.body = BODY + b"1,2,3\n"
    with pytest.raises(InputError, match=r"as fetched before, by .*t.csv.origin.json"):
        get(tmp_path, **unknown)
    assert "noted" in get(tmp_path, unverified=True, **unknown)


def test_through_a_proxy(
    server: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = str(SETS["local"].url).split(":")[2].partition("/")[0]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    get(tmp_path, url="http://publisher.invalid/t.csv")
    assert server.paths == ["http://publisher.invalid/t.csv"]


# ---------------------------------------------------------------- badly
def test_a_wrong_digest_is_said_and_the_download_removed(server: Behaviour, tmp_path: Path) -> None:
    server.body = BODY.replace(b",7\n", b",8\n")
    with pytest.raises(InputError, match=rf"with SHA-256 \w+, not {DIGEST} \(measured here\); it"):
        get(tmp_path)
    assert files(tmp_path) == []
    assert "as it should be" not in get(tmp_path, unverified=True)


def test_a_wrong_size_is_noticed_before_anything_is_taken(
    server: Behaviour, tmp_path: Path
) -> None:
    server.body = BODY + b"x"
    with pytest.raises(
        InputError, match=r"has 2\d\d,\d\d\d bytes, not 2\d\d,\d\d\d; the publisher"
    ):
        get(tmp_path)
    server.length = False
    with pytest.raises(InputError, match="sends more than"):
        get(tmp_path)
    get(tmp_path, unverified=True)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
            "got a Git LFS pointer, not the file",
        ),
        (b"\n<!DOCTYPE html>\n<html>please log in</html>", "got a web page, not the file"),
        (b"", "got an empty file"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_what_is_plainly_not_the_file(
    server: Behaviour, tmp_path: Path, body: bytes, what: str, known: bool
) -> None:
    server.body = body
    if known:
        server.length = False
    with pytest.raises(InputError, match=what):
        get(tmp_path, size_bytes=None, sha256=DIGEST if known else None)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (404, "the server says 404 Not Found; the publisher may have moved the file"),
        (403, "the server says 403 Forbidden; check the network"),
        (503, "the server says 503 Service Unavailable; check the network"),
    ],
)
def test_refused(server: Behaviour, tmp_path: Path, status: int, what: str) -> None:
    server.status = status
    with pytest.raises(InputError, match=what) as refused:
        get(tmp_path / "new")
    assert len(refused.value.lines) == 1
    assert not (tmp_path / "new").exists()


def test_a_part_outlives_a_failure(server: Behaviour, tmp_path: Path) -> None:
    server.cut = [100_000]
    with pytest.raises(InputError):
        get(tmp_path)
    server.status = 500
    with pytest.raises(InputError, match=r"500 .* \(100,000 bytes are kept"):
        get(tmp_path)
    assert (tmp_path / "t.csv.part").stat().st_size == 100_000


def test_silence_ends_by_the_time_limit(server: Behaviour, tmp_path: Path) -> None:
    server.cut, server.wait_s = [100_000], 1.0
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"no data for 0.3 s; .* \(100,000 bytes are kept"):
        get(tmp_path)
    assert time.monotonic() - begin < 0.9


def test_no_answer_at_all(server: Behaviour, tmp_path: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/t.csv"
        with pytest.raises(InputError, match=r"no answer: timed out|cannot be reached: timed out"):
            get(tmp_path, url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/t.csv", "http://nowhere.invalid/t.csv"])
def test_without_network_one_line(server: Behaviour, tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"cannot be reached: .*; check the network") as failed:
        get(tmp_path, url=url)
    assert len(failed.value.lines) == 1
    assert files(tmp_path) == []


def test_sent_on_for_ever(server: Behaviour, tmp_path: Path) -> None:
    server.sent_on = ["/data/t.csv"] * 50
    with pytest.raises(InputError, match="sent on too often"):
        get(tmp_path)
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    "place",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:,x",
        "http://me:secret@127.0.0.1/x",
    ],
)
def test_sent_on_to_what_is_not_the_web(server: Behaviour, tmp_path: Path, place: str) -> None:
    server.sent_on = [place]
    with pytest.raises(InputError) as refused:
        get(tmp_path)
    (line,) = refused.value.lines
    assert "secret" not in line
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "//x/y", "http://u:p@x/", "http://x:99999/", "", "h"]
)
def test_addresses_that_are_not_used(url: str) -> None:
    with pytest.raises(InputError):
        download.check_url(url)


def test_packed_on_its_way(server: Behaviour, tmp_path: Path) -> None:
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(InputError, match="packs the file"):
        get(tmp_path)


def test_no_room(server: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"bytes are to come, and 1,000 are free; make room"):
        get(tmp_path)
    assert files(tmp_path) == []


def test_the_disk_fills_up_on_the_way(
    server: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = download._opened

    class Full:
        """A file with room for 100,000 bytes."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            if not (room := 100_000 - self.file.tell()):
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self.file.write(data[:room]))

    @contextmanager
    def small(part: Path) -> Iterator[Any]:
        with opened(part) as file:
            yield Full(file)

    monkeypatch.setattr(download, "_opened", small)
    with pytest.raises(
        InputError, match=r"No space left on device; make room .*\(100,000 bytes are"
    ):
        get(tmp_path)
    monkeypatch.setattr(download, "_opened", opened)
    get(tmp_path)
    assert server.seen[1]["Range"] == "bytes=100000-"
    assert (tmp_path / "t.csv").read_bytes() == BODY


def test_links_and_folders_in_the_way(server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / "t.csv.part").symlink_to(tmp_path / "other")
    with pytest.raises(InputError, match=r"t.csv.part: leads out of the folder"):
        get(tmp_path)
    assert (tmp_path / "other").read_text() == "mine"
    with pytest.raises(InputError, match=r"other: .*"):
        get(tmp_path / "other")
    for escape in ("../t.csv", "/etc/t.csv", "a/t.csv"):
        with pytest.raises(InputError, match="leads out of the folder"):
            fetch.target_of(replace(SETS["local"], file=escape), tmp_path)
    (tmp_path / "t.csv.part").unlink()
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        get(tmp_path)


def test_two_at_a_time(server: Behaviour, tmp_path: Path) -> None:
    with (
        download._opened(tmp_path / "t.csv.part"),
        pytest.raises(InputError, match="another download writes it"),
    ):
        get(tmp_path)


# ---------------------------------------------------------------- residentsim trace fetch
@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `residentsim trace fetch` in an empty folder; gives exit code, lines and errors."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[Any, list[str], list[str]]:
        with pytest.raises(SystemExit) as ended:
            main(["trace", "fetch", *arguments])
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out.splitlines(), captured.err.splitlines()

    return command


def test_command(server: Behaviour, call: Any, tmp_path: Path) -> None:
    code, out, err = call("local", "--to", "here")
    assert (code, err) == (0, [])
    text = "\n".join(out)
    for fact in ("http://here/page", "CC0", DIGEST, f"{len(BODY):,} bytes", "measured here"):
        assert fact in text
    assert out[-2].startswith(f"here/t.csv: SHA-256 {DIGEST}: as it should be")
    assert out[-1] == "look at it with: residentsim trace inspect here/t.csv --format vidur"
    assert (tmp_path / "here" / "t.csv").read_bytes() == BODY


def test_command_says_all_before_it_fails(server: Behaviour, call: Any, tmp_path: Path) -> None:
    server.status = 404
    code, out, err = call("local")
    assert code == 2
    assert any(DIGEST in line for line in out)
    assert len(err) == 1
    assert "404" in err[0]
    assert not (tmp_path / "traces").exists()


def test_large_ones_are_asked_about(
    server: Behaviour, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sim import cli_trace_fetch

    monkeypatch.setattr(cli_trace_fetch, "LARGE_BYTES", 1000)
    code, _, err = call("local")
    assert (code, len(server.seen)) == (2, 0)
    assert "to download; say --yes" in err[-1]
    # nobody knows the size but the server
    known = SETS["local"]
    monkeypatch.setitem(SETS, "local", replace(known, size_bytes=None))
    assert call("local")[0] == 2
    assert len(server.seen) == 1
    assert call("local", "--yes")[0] == 0
    assert call("local")[0] == 0  # it is there: nothing to ask


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal(
    server: Behaviour, call: Any, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    from sim import cli_trace_fetch

    monkeypatch.setattr(cli_trace_fetch, "LARGE_BYTES", 1000)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    asked: list[str] = []

    def confirm(text: str, err: bool) -> bool:
        assert err
        asked.append(text)
        return answer

    monkeypatch.setattr("typer.confirm", confirm)
    assert call("local")[0] == (0 if answer else 2)
    assert asked == ["download 229 kB?"] or asked[0].startswith("download ")


def test_list_and_names(call: Any) -> None:
    code, out, _ = call("--list")
    assert code == 0
    assert len(out) == len(SETS)
    code, _, err = call("azure-2023-con")
    assert (code, err) == (2, ["'azure-2023-con': no such trace; did you mean 'azure-2023-conv'?"])
    assert call()[0] == 2
    code, out, err = call("servegen")
    assert code == 2
    assert any("git clone" in line for line in out)
    for name in ("../../etc/passwd", "", "a\nb", "/etc/passwd"):
        code, _, err = call(name)
        assert (code, len(err)) == (2, 1)


# ---------------------------------------------------------------- the registry
@pytest.mark.parametrize("one", list(public_sets._ALL), ids=lambda one: one.name)
def test_what_is_said_of_public_traces(one: PublicSet) -> None:
    assert one.format in FORMATS or one.format == "servegen"
    assert re.fullmatch(r"[\w.-]+", one.file)
    assert one.licence
    if one.url is None:
        assert one.how
        return
    download.check_url(one.url)
    assert one.url.startswith("https://")
    if one.sha256 is not None:
        assert re.fullmatch(r"[0-9a-f]{64}", one.sha256)
        assert one.told_by
    # pinned by what `version` says
    assert one.version.rpartition(" ")[2] in one.url


def test_names_and_files_are_unique() -> None:
    assert len(SETS) == len(public_sets._ALL) == len({one.file for one in public_sets._ALL})


def test_known_digests_are_those_of_the_copies_we_have() -> None:
    traces = Path(__file__).parents[1].parent / "shared" / "traces"
    for name, place in (
        ("azure-2023-conv", "azure-2023/AzureLLMInferenceTrace_conv.csv"),
        ("mooncake-conversation", "mooncake-fast25/conversation_trace.jsonl"),
        ("vidur-splitwise-conv", "vidur-processed/splitwise_conv.csv"),
    ):
        if not (path := traces / place).exists():
            pytest.skip(f"{path.name} is not in {path.parent}")
        data = path.read_bytes()
        assert SETS[name].size_bytes == len(data)
        assert SETS[name].sha256 == hashlib.sha256(data).hexdigest()
        assert SETS[name].told_by == public_sets.OWN_COPY

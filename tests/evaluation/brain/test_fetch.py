"""Downloads that fail are not tried again for every run, against a server that counts."""

import hashlib
import http.server
import threading

import pytest

from evaluation.brain._examination import BrainBenchmark
from evaluation.brain.data import DataMissing
from evaluation.brain.fetch import RemoteFile, files
from training.data.base import Source


@pytest.fixture
def server(tmp_path):
    """A server of ``tmp_path/served`` and the list of what it was asked for."""
    asked = []
    (tmp_path / "served").mkdir()

    class Counting(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_a_failed_download_is_not_tried_again_for_every_run(server, tmp_path):
    url, asked = server
    wanted = {"a.bin": RemoteFile(f"{url}/a.bin", hashlib.sha256(b"hello").hexdigest())}

    class Remote(BrainBenchmark):
        name = "remote"

        def load(self, source):
            return files("remote", wanted, source)

    bench = Remote()
    bench.source = Source(tmp_path / "data", True)
    for _ in range(3):  # one scan of runs asks once for each of them
        assert "could not be downloaded" in bench.absent()
        assert {s.metric for s in bench.measure(None)} == {"data", "activation_spatial"}
    assert asked == ["/a.bin"]
    (tmp_path / "data" / "remote").mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / "remote" / "a.bin").write_bytes(b"hello")  # put there by hand
    assert bench.absent() == "" and asked == ["/a.bin"]


def test_what_can_be_downloaded_is_downloaded_once_and_checked(server, tmp_path):
    url, asked = server
    (tmp_path / "served" / "b.bin").write_bytes(b"hello")
    wanted = {"b.bin": RemoteFile(f"{url}/b.bin", hashlib.sha256(b"hello").hexdigest())}
    for _ in range(2):
        found = files("remote", wanted, Source(tmp_path / "data", True))
        assert found["b.bin"].read_bytes() == b"hello"
    assert asked == ["/b.bin"]
    found["b.bin"].write_bytes(b"other")
    with pytest.raises(DataMissing, match="sha256 differs"):
        files("remote", wanted, Source(tmp_path / "data", True))


def test_data_that_were_seen_are_not_loaded_again_to_say_so(tmp_path):
    loads = []

    class Local(BrainBenchmark):
        name = "local"

        def load(self, source):
            loads.append(source)
            if not (source.root / "x").exists():
                raise DataMissing("data not there")

    bench = Local()
    bench.source = Source(tmp_path)
    assert bench.absent() == bench.absent() == "data not there" and len(loads) == 2
    (tmp_path / "x").write_text("")
    assert bench.absent() == bench.absent() == "" and len(loads) == 3

"""A proxy before an S3 server that makes commits race: the PUT of a commit waits until another one of the same version comes."""

import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = re.compile(r"/lake/(?!.*_leases).*/_delta_log/\d{20}\.json$")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


class Barrier(ThreadingHTTPServer):
    """`wait`: seconds that a commit waits for another one of its version; `met`: how many went through with one beside them."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.wait = urlsplit(url).netloc, 1.0
        self.met: Counter[str] = Counter()
        self.meetings: defaultdict[str, threading.Barrier] = defaultdict(lambda: threading.Barrier(2))
        self.turn = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def meet(self, path: str) -> None:
        with self.turn:
            meeting = self.meetings[path]
        try:
            meeting.wait(self.wait)
            self.met[path] += 1
        except threading.BrokenBarrierError:
            with self.turn:  # nobody came; who comes now begins anew
                if self.meetings.get(path) is meeting:
                    del self.meetings[path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Barrier

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert "Transfer-Encoding" not in self.headers
        if self.command == "PUT" and COMMIT.search(urlsplit(self.path).path):
            self.server.meet(self.path)
            with self.server.turn:  # the local server looks and puts in two steps, S3 in one
                self.answer(body)
        else:
            self.answer(body)

    def answer(self, body: bytes) -> None:
        connection = HTTPConnection(self.server.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        connection.request(self.command, self.path, body=body, headers=headers)
        found = connection.getresponse()
        content = found.read()
        self.send_response(found.status)
        for name, value in found.getheaders():
            if name.lower() not in HOP_BY_HOP | {"server", "date"}:
                self.send_header(name, value)
        size = found.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def barrier(url: str) -> Iterator[Barrier]:
    server = Barrier(url)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()

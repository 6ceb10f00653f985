"""The client of Airflow's API against a server that is slow to answer, as one on a busy machine is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra.airflow.api import AirflowApi, AirflowError


class Slow(BaseHTTPRequestHandler):
    """Answers the login at once and everything else only from the third time on."""

    asked: list[str]
    wake: threading.Event

    def do_GET(self) -> None:
        if self.path != "/auth/token":
            self.asked.append(self.command)
            if len(self.asked) < 3:
                self.wake.wait(5)
                return
        content = json.dumps({"access_token": "t", "is_paused": False}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Slow.asked, Slow.wake = [], threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Slow.wake.set()
    server.shutdown()
    server.server_close()


def test_a_question_that_is_not_answered_in_time_is_asked_again(server: str) -> None:
    assert not AirflowApi(server, timeout=0.3).is_paused("nightly")
    assert Slow.asked == ["GET"] * 3


def test_an_order_that_is_not_answered_in_time_is_not_given_twice(server: str) -> None:
    with pytest.raises(AirflowError, match=r"does not answer \(ReadTimeout\)"):
        AirflowApi(server, timeout=0.3).cancel_backfill(1)
    assert Slow.asked == ["PUT"]

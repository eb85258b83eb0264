"""A server that answers as vLLM 0.32 does on the routes that `engine.remote` asks.

What it writes is scripted: `ids` of the next answers, one token an event.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class VllmDouble:
    """One server; its `bodies` are those of all completions that were asked."""

    def __init__(self, base: str, context_tokens: int = 256) -> None:
        self.base, self.context_tokens = base, context_tokens
        self.ids: list[int] = []
        self.adapters: dict[str, str] = {}
        self.bodies: list[dict[str, Any]] = []
        self.is_ill = False  # its engine has died: it says so, and answers nothing well
        self.refuses = ""  # why adapters are refused
        self.pause = threading.Event()  # set: tokens are written; else after the first it waits
        self.pause.set()
        self.breaks_after: int | None = None  # tokens, after which the connection is cut
        self.cut_off = threading.Event()  # the client has closed its connection
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the same port as before; a server that restarts has no adapters."""
        double = self
        self.adapters = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/health":
                    self._answer(503 if double.is_ill else 200, {})
                else:
                    names = [double.base, *double.adapters]
                    length = double.context_tokens
                    self._answer(
                        200, {"data": [{"id": name, "max_model_len": length} for name in names]}
                    )

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = json.loads(self.rfile.read(length))
                if self.path == "/v1/load_lora_adapter":
                    if double.refuses:
                        self._answer(400, {"error": {"message": double.refuses}})
                        return
                    double.adapters[body["lora_name"]] = body["lora_path"]
                    self._answer(200, {})
                elif self.path == "/v1/unload_lora_adapter":
                    double.adapters.pop(body["lora_name"], None)
                    self._answer(200, {})
                else:
                    double.bodies.append(body)
                    self._complete(body)

            def _complete(self, body: dict[str, Any]) -> None:
                if body["model"] not in (double.base, *double.adapters):
                    self._answer(404, {"error": {"message": "no such model"}})
                elif not body.get("stream"):
                    asked = [f"token_id:{token}" for token in body["logprob_token_ids"]]
                    choices = [  # the later a token, the less likely it is here
                        {
                            "index": index,
                            "logprobs": {"top_logprobs": [dict.fromkeys(asked, -0.5 - len(ids))]},
                        }
                        for index, ids in enumerate(body["prompt"])
                    ]
                    self._answer(200, {"choices": choices[::-1]})
                else:
                    self.send_response(200)
                    self.end_headers()
                    with suppress(OSError):
                        self._stream(body)
                        return
                    double.cut_off.set()

            def _stream(self, body: dict[str, Any]) -> None:
                for number, token_id in enumerate(double.ids[: body["max_tokens"]]):
                    if number == double.breaks_after:
                        return
                    if number:
                        while not double.pause.wait(0.02):
                            self._send(": still here\n\n")
                    choice = {"text": "", "token_ids": [token_id]}
                    self._send(f"data: {json.dumps({'choices': [choice]})}\n\n")
                self._send("data: [DONE]\n\n")

            def _send(self, text: str) -> None:
                self.wfile.write(text.encode())
                self.wfile.flush()

            def _answer(self, status: int, document: Any) -> None:
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be away; the port stays this one's."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextmanager
def running(base: str, count: int = 1) -> Iterator[list[VllmDouble]]:
    """So many servers of a base model."""
    doubles = [VllmDouble(base) for _ in range(count)]
    for double in doubles:
        double.start()
    yield doubles
    for double in doubles:
        double.pause.set()
        double.stop()

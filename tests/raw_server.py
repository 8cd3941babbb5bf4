"""An MCP server that answers with given JSON, over stdio as a program or over HTTP in a thread; it knows no SDK."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

Answer = Mapping[str, Any]
CALLED: Answer = {"result": {"content": [{"type": "text", "text": "42"}]}}


def stdio(table: Mapping[str, Any], seen: Path, **env: str) -> dict[str, Any]:
    """The entry of `mcp_servers` of a server that answers by `table` (`answer_to`) and adds what it got to `seen`."""
    return {
        "command": sys.executable,
        "args": [__file__],
        "env": {"TABLE": json.dumps(table), "SEEN": str(seen), **env},
    }


def tool(name: Any, schema: Any = None, **more: Any) -> dict[str, Any]:
    """A tool as it is listed."""
    return {"name": name, "description": "d", "inputSchema": schema or {"type": "object", "properties": {}}, **more}


def one(*tools: Any) -> dict[str, Any]:
    """A table with one page of tools."""
    return {"pages": {"start": {"tools": list(tools)}}}


def answer_to(table: Mapping[str, Any], message: Mapping[str, Any]) -> Answer | None:
    """The answer to a message by a table of `capabilities`, `pages` by cursor, `call` or `calls`; None: hang up."""
    method = message.get("method")
    if method == "initialize":
        capabilities = table.get("capabilities", {"tools": {}})
        info = {"name": "raw", "version": "1"}
        return {"result": {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}}
    if method == "tools/list" and "pages" in table:
        cursor = (message.get("params") or {}).get("cursor")
        page = table["pages"].get("start" if cursor is None else cursor)
        return None if page is None else {"result": page}
    if method == "tools/call":
        answer: Answer | None = table.get("call", CALLED)
        return answer
    return {"error": {"code": -32601, "message": "Method not found"}}


def calls_in(seen: Path) -> list[dict[str, Any]]:
    """The calls of tools that a stdio server got."""
    lines = seen.read_text(encoding="utf-8").splitlines() if seen.exists() else []
    return [message["params"] for message in map(json.loads, lines) if message.get("method") == "tools/call"]


class RawWeb:
    """A server over HTTP; `answer` gives `(status, body)` for a message, None as body hangs up.

    Attributes:
        got: the messages, in order.
        headers: the headers of each.
    """

    def __init__(
        self, answer: Callable[[Mapping[str, Any], int], tuple[int, Answer | None]], path: str = "/mcp"
    ) -> None:
        self.got: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        raw = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                raw.got.append(message)
                raw.headers.append(dict(self.headers))
                if "id" not in message:
                    self._send(202, b"")
                    return
                count = sum(1 for one in raw.got if one.get("method") == message["method"])
                status, body = answer(message, count)
                if body is None:
                    self.close_connection = True
                    return
                self._send(status, json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}).encode())

            def do_GET(self) -> None:
                self._send(405, b"")

            do_DELETE = do_GET  # noqa: N815 - the name is http.server's

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.send_header("mcp-session-id", "session-1")
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    @property
    def calls(self) -> int:
        """How many calls of tools it got."""
        return sum(1 for message in self.got if message.get("method") == "tools/call")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _serve() -> None:
    table = json.loads(os.environ["TABLE"])
    sys.stderr.buffer.write(os.environ.get("SAY", "").encode())
    sys.stderr.flush()
    for line in sys.stdin:
        with Path(os.environ["SEEN"]).open("a", encoding="utf-8") as file:
            file.write(line)
        message = json.loads(line)
        if "id" not in message:
            continue
        answer = answer_to(table, message)
        if answer is None:
            os._exit(1)
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()

"""HTTP for all providers: clients and transports (`clients`), server-sent events (`sse`).

`httpx2` and `Transport` are imported at first use. A test may replace `Transport`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "httpx2":
        import httpx2  # takes 60 ms, which only programs that make a client need

        return httpx2
    if name == "Transport":
        from muse.providers._http.transport import Transport  # imports httpx2

        return Transport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""HTTP for all providers: clients and transports (`clients`), server-sent events (`sse`).

`httpx2` and `Transport` are loaded at their first use. A test may put another transport in place of `Transport`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "httpx2":
        import httpx2  # 60 ms, and only who makes a client pays it

        return httpx2
    if name == "Transport":
        from muse.providers._http.transport import Transport  # it brings httpx2

        return Transport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

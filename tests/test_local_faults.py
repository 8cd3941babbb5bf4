"""What keeps a request from being sent on this machine is a setting to mend, held against no provider."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from muse.errors import ConfigError
from muse.policies import circuit_breaker
from muse.providers._http import clients
from muse.providers._sdk_base import transport_fault
from tests.desk import WAYS, Desk
from tests.provider_cases import WIRES, Case

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def fresh_tls() -> Iterator[None]:
    """No TLS context of another test, and none left for the next."""
    clients.tls_context.cache_clear()
    yield
    clients.tls_context.cache_clear()


def _blame(desk: Desk, case: Case, way: str) -> ConfigError:
    """The error of a call with retries that is to fail before anything is sent."""
    desk.use(case)
    section = case.providers(desk.server.url)
    section["default"]["retries"] = 3
    desk.journal.write({"providers": {**section, "breaker": {"failures": 1, "cool_down_s": 60}}})
    error = desk.fail(way, api_key=f"key-of-{way}-{case.name}-only")
    assert isinstance(error, ConfigError), repr(error)
    assert not desk.server.requests
    assert [line["error"]["class"] for line in desk.journal.lines()] == ["ConfigError"]
    assert list(circuit_breaker.circuit_states()) == []
    return error


@every_way
@every_wire
def test_certificates_that_are_not_there_are_named_by_their_variable(
    desk: Desk, case: Case, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    error = _blame(desk, case, way)
    assert error.path == "SSL_CERT_FILE"
    assert "gone.pem" in str(error)
    monkeypatch.delenv("SSL_CERT_FILE")
    assert desk.ask(way).provider == case.name, "mended without a restart"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_certificates_that_cannot_be_read_are_named(
    desk: Desk, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "no.pem").write_text("this is no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "no.pem"))
    assert "SSL_CERT_FILE" in str(_blame(desk, WIRES[0], way))


def test_a_folder_of_certificates_that_is_not_there_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "gone"))
    assert _blame(desk, WIRES[0], "sync").path == "SSL_CERT_DIR"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "kéy", "tab\tkey", "del\x7fkey"])
@every_wire
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(desk: Desk, case: Case, key: str) -> None:
    desk.use(case)
    error = desk.fail("sync", api_key=key)
    assert isinstance(error, ConfigError), repr(error)
    assert key not in str(error)
    assert not desk.server.requests


@pytest.mark.parametrize(
    "exc",
    [
        OSError(errno.EMFILE, "Too many open files"),
        FileNotFoundError(errno.ENOENT, "No such file", "/gone/cert.pem"),
        clients.httpx2.UnsupportedProtocol("no http"),
        clients.httpx2.LocalProtocolError("Illegal header value"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_a_fault_of_the_machine_is_found_beneath_a_transports_error(exc: Exception) -> None:
    outer = clients.httpx2.ConnectError("connection failed")
    outer.__cause__ = exc
    assert isinstance(transport_fault(outer, "openai", "m"), ConfigError)
    assert not isinstance(transport_fault(clients.httpx2.ConnectError("refused"), "openai", "m"), ConfigError)

"""The pages of the apps, served to a browser; it knows no app and no page."""

from __future__ import annotations

import argparse
import errno
import getpass
import ipaddress
import logging
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from types import FrameType
from typing import TextIO

from msgspec import Struct

from muse.cli._terminal.arguments import parsed, parser_for
from muse.cli._terminal.terminal import near
from muse.errors import ConfigError
from muse.journal import paths

try:
    import uvicorn

    from apps.host.app_factory import Access, make_site
    from apps.host.security.connection_limits import BACKLOG, Connection
    from apps.host.security.middleware import LOOPBACK_NAMES, host_name
    from apps.host.security.password import MOST_CHARS, kept_hash, set_password
    from apps.host.templating import SCRIPTS, STATIC
except ModuleNotFoundError as exc:
    raise ImportError(f"{exc}; the pages need: pip install 'muse-router[web]'") from exc

log = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 5005
_FURTHER_PORTS = 20
_STOPPING_S = 2
_INTERRUPTED = 128 + 2
_LONGEST_LINE_BYTES = 4 * MOST_CHARS + 2
_EPILOG = """\
It listens on this machine only, unless --host says otherwise; on any other address it asks for a password, which
is set once (only its hash is kept, in the journal's config folder):
  muse serve --set-password
The connection itself is not encrypted. To reach the pages from elsewhere put a proxy with TLS before it, and say
by which name they are then known: muse serve --password --name muse.example.org

For example:
  muse serve                        the pages, at http://127.0.0.1:5005/
  muse serve --open                 and opens them in the browser
  muse serve --host 0.0.0.0         for other machines of the network too, with the password
  muse serve --port 8000            another port
  JOURNAL_PATH=fixtures/journal muse serve    another journal
"""


class Place(Struct, frozen=True):
    """Where to listen: an address, and a port that is tried alone if it was asked for (0 takes a free one)."""

    host: str
    port: int
    is_asked: bool

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        address = _address(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    @property
    def is_everywhere(self) -> bool:
        """Whether it stands for all addresses of this machine."""
        address = _address(self.host)
        return address is not None and address.is_unspecified


def main(argv: list[str] | None = None) -> int:
    """Run `muse serve` until it is interrupted; 0 done, 2 used wrongly.

    Raises:
        MuseError: the port or the password is not to be had.
        KeyboardInterrupt: Ctrl-C, when all is closed.
    """
    args = parsed(_parser(), argv, as_json=False, verbose="log every request")
    if isinstance(args, int):
        return args
    if args.set_password:
        return _set_password()
    place = Place(args.host or HOST, PORT if args.port is None else args.port, args.port is not None)
    access = _access(place, args.name, asked=args.password)
    _check_scripts()
    listener = _listen(place)
    with listener:
        try:
            _serve(listener, place, access, opens=args.open, logs=args.verbose or args.debug)
        except KeyboardInterrupt:
            _leave_threads_behind()
            raise
    return 0


def _leave_threads_behind() -> None:
    """End the process at once if a request is still at work in a thread: it has had its time, and would hold it up."""
    if all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()):
        return
    sys.stderr.write("muse: interrupted; what was still at work was left\n")
    sys.stderr.flush()
    os._exit(_INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    told = "Serve the pages of the apps to a browser until Ctrl-C."
    parser = parser_for("serve", told, _EPILOG)
    parser.add_argument("--host", metavar="ADDRESS", help=f"address to listen on ({HOST}, this machine only)")
    parser.add_argument(
        "--port", type=_port, metavar="N", help=f"port to listen on, 0 for a free one ({PORT}, or the next free one)"
    )
    parser.add_argument("--open", action="store_true", help="open the pages in the browser")
    parser.add_argument("--password", action="store_true", help="ask for the password on this machine too")
    parser.add_argument("--set-password", action="store_true", help="ask for a new password, keep its hash, and stop")
    parser.add_argument(
        "--name",
        type=_name,
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name of the pages; may be repeated",
    )
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 65535")
    return int(text)


def _name(text: str) -> str:
    """A name as browsers send it; one that they never send would be of no use."""
    name = host_name(text)
    if not name or name != text.strip("[]").casefold():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a host name alone, such as muse.example.org")
    return name


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _set_password() -> int:
    """Keep the hash of a new password."""
    password = _given_password()
    if password is None:
        sys.stderr.write("muse serve: the two differ; nothing was changed\n")
        return 1
    path = set_password(password)
    print(f"Kept the password's hash in {path}. Whoever is signed in must sign in again.")  # noqa: T201
    return 0


def _given_password() -> str | None:
    """A password that is typed twice, without being shown, or sent by a program as one line; None if the two differ."""
    source: TextIO | None = sys.stdin  # None where it is closed
    if source is None:
        return ""
    if not source.isatty():
        return source.buffer.readline(_LONGEST_LINE_BYTES).decode("utf-8", errors="surrogateescape").rstrip("\r\n")
    try:
        password = getpass.getpass("New password for the pages: ")
        return password if getpass.getpass("Once more: ") == password else None
    except EOFError:
        return None


def _check_scripts() -> None:
    """Say if the scripts that an installation copies out of their packages are not there."""
    missing = [name for name in SCRIPTS if not (STATIC / "vendor" / name).is_file()]
    if missing:
        sys.stderr.write(f"muse serve: {', '.join(missing)} not found: install muse again, for charts and previews\n")


def _access(place: Place, names: Sequence[str], *, asked: bool) -> Access:
    """Who may come.

    Raises:
        ConfigError: a password is needed and none is set.
    """
    needs_password = asked or not place.is_local
    if needs_password and not kept_hash():
        where = "--password" if asked else f"--host {place.host}"
        raise ConfigError(where, "no password", "one that was set with: muse serve --set-password")
    hosts = {*LOOPBACK_NAMES, place.host.strip("[]"), *names}
    if not place.is_local:
        hosts |= {socket.gethostname(), f"{socket.gethostname()}.local"}
    return Access(frozenset(hosts), any_address=place.is_everywhere, password=needs_password)


def _listen(place: Place) -> socket.socket:
    """A socket that listens; the next free port where the usual one is taken.

    Raises:
        ConfigError: the port is taken, or this machine has no such address.
    """
    host = place.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = place.port if place.is_asked else place.port + _FURTHER_PORTS
    for port in range(place.port, last + 1):
        try:
            listener = socket.create_server((host, port), family=family)
        except (OSError, UnicodeError) as exc:  # a name that is none fails as text
            if port == last or not _is_taken(exc):
                reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
                found = f"{host} port {place.port}, which cannot be had ({reason})"
                raise ConfigError("--host and --port", found, "a free port of this machine; 0 takes any") from exc
        else:
            if port != place.port:
                sys.stderr.write(f"muse serve: port {place.port} is taken; took {port}\n")
            # Inherited by each connection; without it a kept one waits 40 ms for the browser's acknowledgement.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
    raise AssertionError("the last port either listens or raises")


def _is_taken(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in {errno.EADDRINUSE, errno.EACCES}


def _serve(listener: socket.socket, place: Place, access: Access, *, opens: bool, logs: bool) -> None:
    """Serve until a signal comes."""
    port = int(listener.getsockname()[1])
    host = place.host.strip("[]")
    if place.is_everywhere:
        host = "::1" if ":" in host else HOST
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    for name in ("uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if logs else logging.WARNING)
    config = uvicorn.Config(
        make_site(access),
        log_config=None,
        access_log=logs,
        http=Connection,
        backlog=BACKLOG,
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOPPING_S,
    )
    _Server(config, url, opens=opens, place=place).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, url: str, *, opens: bool, place: Place) -> None:
        super().__init__(config)
        self._url, self._opens, self._place = url, opens, place

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        _say(f"muse serves the journal in {near(paths.journal_name())}{os.sep} at {self._url}  (Ctrl-C ends it)")
        if not self._place.is_local:
            _say("Other machines reach it too, after the password. The connection is not encrypted.")
        if self._opens:
            threading.Thread(target=_open, args=(self._url,), daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; streams that are broken off by that are no error of theirs."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)


def _say(text: str) -> None:
    """Print a line at once; where nobody can read it any more, it goes to the log, and the pages are served."""
    output: TextIO | None = sys.stdout  # None where it is closed
    try:
        if output is not None:
            output.write(f"{text}\n")
            output.flush()
    except OSError as exc:
        log.warning("%s [standard output: %s]", text, exc.strerror)


def _open(url: str) -> None:
    if not webbrowser.open(url):
        sys.stderr.write(f"muse serve: no browser could be started; open {url} in one\n")

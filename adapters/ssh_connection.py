"""One SSH connection to a login node, shared by everything that talks to it.

Blocking, and safe to be used by many threads. Host keys are pinned: a key that is unknown or has
changed is refused before anything is sent that proves who we are. Every wait has a limit, both
output streams are read as they come, and whatever goes wrong is one of the fabric's own errors.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko.ssh_exception import AuthenticationException, IncompatiblePeer, SSHException

from temporal_fabric.adapters.slurm_transport import PeerRefused
from temporal_fabric.adapters.ssh_conversation import Conversation, session
from temporal_fabric.errors import BackendUnknown, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Generator

    from temporal_fabric.adapters.ssh_conversation import Program, Said
    from temporal_fabric.adapters.ssh_target import Target

# It logs a stack of its own for every error that it also raises, which is told from here.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

KEEPALIVE_S = 15
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


class LoginRefused(TransientBackendError):
    """The host does not let us in with the keys that we have."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a login node is reached."""

    target: Target
    jumps: tuple[Target, ...]
    key: str
    """Private key file; empty for the keys of the agent alone."""

    agent: bool
    host_key: str
    """The pinned key of the target, in one line; empty for what the file says."""

    known_hosts: str
    connect_s: float
    sessions: int


class SshConnection:
    """Connects when it is first needed, and again when the connection was lost."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(way.sessions)
        self._transports: list[paramiko.Transport] = []
        self._counting = threading.Lock()
        self._kept: list[Conversation] = []
        self._busy = 0
        self._closed = False

    def ask(self, program: Program, line: bytes, end: bytes, limit_s: float) -> Said:
        """Let a program of the host answer a line; it stays there for the next one.

        A program that waited, and has ended, is started again: whatever is asked has to be safe
        to repeat.

        Args:
            program: The same one in every call.
            line: What it is asked; see `Conversation.ask`, also for ``end``.
            end: How a whole answer ends.
            limit_s: For the answer.

        Raises:
            BackendUnknown: no whole answer came in time.
            TransientBackendError: the host was not reached, or refuses us.
        """
        with self._session(limit_s) as transport, _translated(self._way.target):
            said = self._ask_again(transport, line, end, limit_s)
            if said is not None:
                return said
            begun = Conversation(transport, program, self._way.connect_s)
            return self._converse(begun, line, end, limit_s)

    def _ask_again(
        self, transport: paramiko.Transport, line: bytes, end: bytes, limit_s: float
    ) -> Said | None:
        """Ask a program that waits; return None where there is none, or it had ended."""
        with self._counting:
            kept = self._kept.pop() if self._kept else None
        if kept is None:
            return None
        if not kept.usable:
            kept.close()
            return None
        try:
            said = self._converse(kept, line, end, limit_s)
        except TimeoutError:
            raise
        except (SSHException, EOFError, OSError):
            if transport.is_active():
                return None
            raise
        return said if said.code is None else None

    def _converse(self, talk: Conversation, line: bytes, end: bytes, limit_s: float) -> Said:
        try:
            said = talk.ask(line, end, limit_s)
        except BaseException:
            talk.close()
            raise
        if said.code is not None:
            talk.close()
            return said
        with self._counting:
            self._kept.append(talk)
        if self._closed:
            self._let_go(0)
        return said

    @contextlib.contextmanager
    def files(self, limit_s: float) -> Generator[paramiko.SFTPClient]:
        """Yield a session that moves files; `OSError` of single files passes through.

        Args:
            limit_s: How long one step may take.

        Raises:
            BackendUnknown: the connection was lost.
        """
        with self._session(limit_s) as transport, self._lost(transport):
            self._let_go(max(0, self._way.sessions - self._busy))
            channel = session(transport, self._way.connect_s)
            try:
                channel.settimeout(limit_s)
                channel.invoke_subsystem("sftp")
                yield paramiko.SFTPClient(channel)
            finally:
                with contextlib.suppress(SSHException, EOFError, OSError):
                    channel.close()

    @contextlib.contextmanager
    def _lost(self, transport: paramiko.Transport) -> Generator[None]:
        """Tell a connection that was lost from a file that is refused."""
        try:
            yield
        except (SSHException, EOFError, TimeoutError) as exc:
            raise BackendUnknown(_lost(self._way.target, exc)) from exc
        except OSError as exc:
            if exc.errno is not None and transport.is_active():
                raise
            raise BackendUnknown(_lost(self._way.target, exc)) from exc

    def close(self) -> None:
        """End the connection; calls under way fail, none begins any more."""
        self._closed = True
        self._let_go(0)
        with self._lock:
            self._drop()

    @contextlib.contextmanager
    def _session(self, limit_s: float) -> Generator[paramiko.Transport]:
        if not self._sessions.acquire(timeout=limit_s):
            raise BackendUnknown(
                f"no session became free in {limit_s:g} s [host={self._way.target}]"
            )
        with self._counting:
            self._busy += 1
        try:
            yield self._transport()
        finally:
            with self._counting:
                self._busy -= 1
            self._sessions.release()

    def _let_go(self, room: int) -> None:
        """Let programs go that wait, but for so many, which were asked last."""
        with self._counting:
            over = self._kept[: max(0, len(self._kept) - room)]
            self._kept = self._kept[len(over) :]
        for kept in over:
            kept.close()

    def _transport(self) -> paramiko.Transport:
        with self._lock:
            if self._transports and self._transports[-1].is_active():
                return self._transports[-1]
            self._drop()
            if self._closed:
                raise BackendUnknown(f"the connection was closed [host={self._way.target}]")
            try:
                self._connect()
            except BaseException:
                self._drop()
                raise
            return self._transports[-1]

    def _drop(self) -> None:
        for transport in reversed(self._transports):
            transport.close()
        self._transports = []

    def _connect(self) -> None:
        way = self._way
        hops = [*way.jumps, way.target]
        with _translated(hops[0]):
            link: socket.socket | paramiko.Channel = socket.create_connection(
                (hops[0].host, hops[0].port), timeout=way.connect_s
            )
        for hop, after in zip(hops, [*hops[1:], None], strict=True):
            with _translated(hop):
                transport = paramiko.Transport(link)
                self._transports.append(transport)
                transport.banner_timeout = transport.auth_timeout = way.connect_s
                self._greet(transport, hop, pinned=after is None)
                self._log_in(transport, hop)
                transport.set_keepalive(KEEPALIVE_S)
                if after is not None:
                    where, us = (after.host, after.port), ("127.0.0.1", 0)
                    link = transport.open_channel("direct-tcpip", where, us, timeout=way.connect_s)

    def _greet(self, transport: paramiko.Transport, hop: Target, *, pinned: bool) -> None:
        known = _known_keys(self._way.host_key if pinned else "", self._way.known_hosts, hop)
        if known:
            kinds = [kind for name in known for kind in (_RSA if name == "ssh-rsa" else (name,))]
            options = transport.get_security_options()
            options.key_types = [kind for kind in kinds if kind in options.key_types]
        with contextlib.ExitStack() as stack:
            stack.enter_context(_refusing_other_kinds(hop, known))
            transport.start_client(timeout=self._way.connect_s)
        shown = transport.get_remote_server_key()
        if known.get(shown.get_name()) != shown.asbytes():
            raise PeerRefused(_refusal(hop, shown, known=bool(known)))

    def _log_in(self, transport: paramiko.Transport, hop: Target) -> None:
        tried: list[str] = []
        for key in self._keys():
            tried.append(fingerprint(key))
            try:
                transport.auth_publickey(hop.user, key)
            except AuthenticationException:
                if not transport.is_active():
                    break
                continue
            if transport.is_authenticated():
                return
        raise LoginRefused(
            f"the host does not accept our keys [host={hop}, "
            f"tried={', '.join(tried) or 'none'}]: put the public key "
            f"into ~/.ssh/authorized_keys of {hop.user} there, or set the options 'user' and 'key'"
        )

    def _keys(self) -> Generator[paramiko.PKey]:
        if self._way.key:
            path = Path(self._way.key).expanduser()
            try:
                yield paramiko.PKey.from_path(path)
            except (OSError, SSHException, ValueError, TypeError) as exc:
                raise LoginRefused(
                    f"the private key cannot be read [key={path}]: {exc or 'it has a passphrase'}; "
                    "load it into an SSH agent and set agent = true"
                ) from exc
        if self._way.agent:
            agent = paramiko.Agent()
            try:
                yield from agent.get_keys()
            finally:
                agent.close()


def fingerprint(key: paramiko.PKey) -> str:
    """Return a key's fingerprint as ``ssh-keygen -l`` prints it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@contextlib.contextmanager
def _translated(hop: Target) -> Generator[None]:
    """Turn the errors of sockets and of SSH into the fabric's own."""
    try:
        yield
    except (SSHException, EOFError, OSError) as exc:
        raise BackendUnknown(_lost(hop, exc)) from exc


@contextlib.contextmanager
def _refusing_other_kinds(hop: Target, known: dict[str, bytes]) -> Generator[None]:
    """Say what it means where the host has no key of a kind that is pinned."""
    try:
        yield
    except IncompatiblePeer as exc:
        if "host key" not in str(exc):
            raise
        kinds = ", ".join(known)
        raise PeerRefused(
            f"the host has no key of the pinned kinds any more (E_HOSTKEY) [host={hop}, "
            f"pinned={kinds}]: its key has changed; ask its owner, then pin the new one"
        ) from exc


def _lost(hop: Target, exc: BaseException) -> str:
    why = str(exc) or type(exc).__name__
    return (
        f"the host does not answer [host={hop}, why={why}]: look whether it is up, and whether the "
        "options 'host', 'port' and 'jump' say the way"
    )


def _refusal(hop: Target, shown: paramiko.PKey, *, known: bool) -> str:
    what = "the host's key has changed" if known else "the host's key is not known"
    line = f"{shown.get_name()} {shown.get_base64()}"
    return (
        f"{what} (E_HOSTKEY) [host={hop}, seen={shown.get_name()} {fingerprint(shown)}]: compare "
        f"the fingerprint with what the host's owner says, then pin the key with host_key = "
        f'"{line}" in the backend\'s options, or with the line "{hop.known_as} {line}" in the '
        "file that known_hosts names"
    )


def _known_keys(line: str, file: str, hop: Target) -> dict[str, bytes]:
    """Return the keys that a host may show, by kind."""
    if line:
        kind, _, text = line.partition(" ")
        return {kind: base64.b64decode(text.split()[0])}
    hosts = paramiko.HostKeys()
    with contextlib.suppress(FileNotFoundError):
        hosts.load(str(Path(file).expanduser()))
    found = hosts.lookup(hop.known_as)
    return {kind: key.asbytes() for kind, key in found.items()} if found else {}

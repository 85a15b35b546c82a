"""The calls to a Docker engine: each blocks, so it belongs into a thread.

What comes back is checked before it is believed, and whatever goes wrong leaves as one of three:
`TransientBackendError` or its `BackendUnknown` where nothing is known, `PermanentBackendError`
where the engine refuses for good.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.docker_answers import about, id_of, image_of, labels_of, seen
from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from temporal_fabric.adapters.docker_answers import About, Image, Seen

STDOUT, STDERR = 1, 2

_FRAME_HEAD = 8
_LOOK_S = 0.05
_NOT_FOUND, _CONFLICT, _TOO_MANY, _SERVER = 404, 409, 429, 500
_FOR_GOOD = ("OCI runtime", "device driver", "executable file not found")
"""What an engine says of a container that it will never start, with the code of its own failure."""

_NO_DRIVER = "could not select device driver"
_NO_GPUS = "; for GPUs it needs the NVIDIA Container Toolkit on its host, and a restart"

_NO_STATE_FOR_IT = ("is not running", "is not paused", "is already paused")


class NameTaken(Exception):
    """A container of this name exists."""


class NotRunning(Exception):
    """The container does not run, or there is none."""


class Engine:
    """One engine behind a Unix socket.

    Args:
        host: ``unix:///path``.
        patience_s: How long an answer may take.
    """

    def __init__(self, host: str, patience_s: float) -> None:
        self._host, self._patience_s = host, patience_s
        self._socket = host.removeprefix("unix://")
        self._lock = threading.Lock()
        self._client: Any = None
        self._closed = False
        self._streams: set[Any] = set()

    def about(self) -> About:
        """Return what the engine is."""
        with self._translated():
            told = self._api().info()
            return about(told, self._api().api_version)

    def inspect(self, name: str) -> Seen | None:
        """Return a container by its name or id, None where there is none of it."""
        with self._translated():
            try:
                return seen(self._api().inspect_container(name))
            except _docker_errors().NotFound as exc:
                _absent(exc, "No such container")
                return None

    def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Create a container and return its id.

        Raises:
            NameTaken: there is one of this name.
        """
        with self._translated():
            try:
                told = self._api().create_container_from_config(dict(config), name)
            except _docker_errors().APIError as exc:
                if exc.status_code == _CONFLICT:
                    raise NameTaken from exc
                raise
            return id_of(told)

    def start(self, container: str) -> None:
        """Start a container that was created."""
        with self._translated():
            self._api().start(container)

    def kill(self, container: str, signal: str) -> None:
        """Send a signal to the first process.

        Raises:
            NotRunning: nothing runs any more.
        """
        with self._acting():
            self._api().kill(container, signal)

    def pause(self, container: str) -> None:
        """Freeze every process; raises `NotRunning`, also where it is frozen already."""
        with self._acting():
            self._api().pause(container)

    def unpause(self, container: str) -> None:
        """Thaw every process; raises `NotRunning`, also where it was not frozen."""
        with self._acting():
            self._api().unpause(container)

    def remove(self, container: str) -> bool:
        """Remove a container that does not run; return whether it is gone."""
        with self._translated():
            try:
                self._api().remove_container(container, v=True)
            except _docker_errors().NotFound as exc:
                _absent(exc, "No such container")
            except _docker_errors().APIError as exc:
                if exc.status_code != _CONFLICT:
                    raise
                return False
            return True

    def labelled(self, labels: Mapping[str, str], *statuses: str) -> list[Mapping[str, str]]:
        """Return the labels of the containers that have these and are in one of the states."""
        wanted = [f"{key}={value}" for key, value in labels.items()]
        with self._translated():
            found = self._api().containers(
                all=True, filters={"label": wanted, "status": list(statuses)}
            )
            return [labels_of(row) for row in found]

    def image(self, reference: str) -> Image | None:
        """Return an image by reference or id, None where the engine has not got it."""
        with self._translated():
            try:
                return image_of(self._api().inspect_image(reference))
            except _docker_errors().ImageNotFound as exc:
                _absent(exc, "No such image")
                return None

    def pull(self, reference: str) -> Iterator[Mapping[str, Any]]:
        """Fetch an image; yields what the engine tells meanwhile, its errors included."""
        with self._translated():
            told = self._api().pull(reference, stream=True, decode=True)
            for line in told:
                if not is_table(line):
                    raise TypeError(line)
                self._api()  # ends a long fetch once this is closed
                yield line

    def frames(self, container: str, *, follow: bool) -> Generator[tuple[int, bytes]]:
        """Yield the output from its beginning: a stream's number, and a piece of it.

        Args:
            container: Name or id.
            follow: Go on until the container ends, or `hang_up`.
        """
        with self._translated():
            api = self._api()
            answer = api.get(
                f"{self._at(api)}/containers/{container}/logs",
                params={"stdout": 1, "stderr": 1, "follow": int(follow)},
                stream=True,
                timeout=(self._patience_s, None if follow else self._patience_s),
            )
            yield from self._frames(answer)

    def prepare(self, container: str, argv: tuple[str, ...]) -> str:
        """Prepare a command in a running container and return its id."""
        with self._translated():
            return id_of(self._api().exec_create(container, list(argv), stdin=False))

    def perform(self, command: str) -> Generator[tuple[int, bytes]]:
        """Start a prepared command; yield its output to its end, as `frames` does."""
        with self._translated():
            api = self._api()
            # Not by the SDK, which leaves the connection to the garbage collector.
            answer = api.post(
                f"{self._at(api)}/exec/{command}/start",
                json={"Detach": False, "Tty": False},
                stream=True,
                timeout=(self._patience_s, None),
            )
            yield from self._frames(answer)

    def performed(self, command: str) -> int:
        """Return the exit code of a command whose output has ended."""
        end = time.monotonic() + self._patience_s
        with self._translated():
            while (told := self._api().exec_inspect(command))["Running"]:
                if time.monotonic() > end:
                    raise BackendUnknown("a command has closed its output and goes on")
                time.sleep(_LOOK_S)
            return int(told["ExitCode"])

    def process_of(self, command: str) -> int:
        """Return a command's process on this host, 0 where it has none."""
        with self._translated():
            told = self._api().exec_inspect(command)
            return int(told["Pid"]) if told["Running"] else 0

    def hang_up(self) -> None:
        """End every output that is being followed."""
        for stream in list(self._streams):
            with suppress(OSError, AttributeError):
                stream.close()

    def close(self) -> None:
        """Close the connections."""
        self.hang_up()
        with self._lock:
            self._closed = True
            if self._client is not None:
                self._client.close()
                self._client = None

    def _at(self, api: Any) -> str:
        return f"{api.base_url}/v{api.api_version}"

    def _frames(self, answer: Any) -> Generator[tuple[int, bytes]]:
        with self._open(answer):
            if answer.status_code == _NOT_FOUND:
                return
            answer.raise_for_status()
            while head := answer.raw.read(_FRAME_HEAD):
                size = int.from_bytes(head[4:], "big")
                data = answer.raw.read(size)
                if len(head) != _FRAME_HEAD or head[0] not in {1, 2} or len(data) != size:
                    raise ValueError("the output was cut off, or is none")
                yield (head[0], data)

    @contextmanager
    def _open(self, answer: Any) -> Generator[None]:
        stream = import_module("docker.types").CancellableStream(iter(()), answer)
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)
            answer.close()

    def _api(self) -> Any:
        # The SDK leaves a connection that fails to the garbage collector, and hides why it did.
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(self._patience_s)
            caller.connect(self._socket)
        with self._lock:
            if self._closed:
                raise BackendUnknown("the connection to the engine was closed")
            if self._client is None:
                self._client = import_module("docker").APIClient(
                    base_url=self._host, version="auto", timeout=self._patience_s
                )
            return self._client

    @contextmanager
    def _acting(self) -> Generator[None]:
        """Translate, and tell that the container is in no state for what was asked."""
        with self._translated():
            try:
                yield
            except _docker_errors().NotFound as exc:
                _absent(exc, "No such container")
                raise NotRunning from exc
            except _docker_errors().APIError as exc:
                # Engines differ in the code of that answer, not in its words.
                if not any(words in str(exc.explanation) for words in _NO_STATE_FOR_IT):
                    raise
                raise NotRunning from exc

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Turn every error of SDK and transport into one of the fabric's."""
        docker, requests = _docker_errors(), import_module("requests.exceptions")
        urllib3 = import_module("urllib3.exceptions")
        try:
            yield
        except docker.APIError as exc:
            raise _refused(exc) from exc
        except (docker.DockerException, requests.RequestException, urllib3.HTTPError) as exc:
            raise BackendUnknown(self._away(exc)) from exc
        except OSError as exc:
            raise BackendUnknown(self._away(exc)) from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise BackendUnknown(
                f"the engine's answer means nothing [host={self._host}, {type(exc).__name__}]: "
                "is it Docker that listens there?"
            ) from exc

    def _away(self, error: BaseException) -> str:
        why = _root(error)
        if isinstance(why, FileNotFoundError):
            return f"there is no socket {self._socket}: start Docker, or set the option 'host'"
        if isinstance(why, PermissionError):
            return (
                f"the worker's user may not use {self._socket}: add the user to the group of that "
                "socket, usually docker, and start the worker anew"
            )
        if isinstance(why, ConnectionRefusedError):
            return f"nobody listens at {self._socket}: start Docker"
        return f"the engine does not answer [host={self._host}]: {why}"


def _docker_errors() -> Any:
    return import_module("docker.errors")


def _root(error: BaseException) -> BaseException:
    """Return the first cause; what lies between only repeats it."""
    while isinstance(inner := error.__cause__ or error.__context__, BaseException):
        error = inner
    return error


def _refused(error: Any) -> TransientBackendError | PermanentBackendError:
    """Return what an answer with an error code means."""
    code, told = error.status_code, str(error.explanation or error)[:500]
    text = f"the engine refuses [status={code}]: {told}{_NO_GPUS if _NO_DRIVER in told else ''}"
    for_good = any(phrase in told for phrase in _FOR_GOOD)
    if code is None or code == _TOO_MANY or (code >= _SERVER and not for_good):
        return TransientBackendError(text)
    return PermanentBackendError(text)


def _absent(error: Any, said: str) -> None:
    """Return where an engine says that it has not got something; nobody else is believed."""
    if said.lower() not in str(error.explanation).lower():
        raise ValueError(f"not an engine's word: {error}") from error

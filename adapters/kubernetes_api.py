"""Asking a Kubernetes API server: objects as plain JSON, logs, and commands in containers.

Calls block; run them in a thread. The Kubernetes client gives what is hard, which is reading a
kubeconfig with everything that may stand in it, and a connection that trusts and is trusted.
Answers are plain JSON that is looked at before it is believed: the client's models would fill in
nothing for whatever a proxy on the way has answered.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Generator

    from urllib3 import BaseHTTPResponse, PoolManager

    from temporal_fabric.adapters.kubernetes_options import KubernetesOptions

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What every pod with an account finds of it."""

MERGE_PATCH = "application/merge-patch+json"
_JSON = "application/json"
_CONNECT_S = 5.0
_CONNECTIONS = 16


class NotFound(Exception):
    """The API server says that the object does not exist."""


class Conflict(Exception):
    """The object exists already, or has changed since it was read."""


class NotConfigured(PermanentBackendError):
    """There is no configuration that leads to a cluster; the message says what to do."""


class KubernetesApi:
    """One cluster as one user.

    Args:
        options: Where it is, and how long it may take.
        backend: The backend's name, for messages.
    """

    def __init__(self, options: KubernetesOptions, backend: str) -> None:
        self._options, self._backend = options, backend
        self._lock = threading.Lock()
        self._pool: PoolManager | None = None
        self._configuration: Any = None
        self._namespace = options.namespace

    @property
    def namespace(self) -> str:
        """The namespace of all objects.

        Raises:
            NotConfigured: nothing leads to a cluster.
        """
        self.connect()
        return self._namespace

    @property
    def server(self) -> str:
        """Address of the API server.

        Raises:
            NotConfigured: nothing leads to a cluster.
        """
        self.connect()
        return str(self._configuration.host)

    @property
    def configuration(self) -> Any:
        """The Kubernetes client's configuration."""
        self.connect()
        return self._configuration

    def connect(self) -> PoolManager:
        """Read the configuration, once; nobody is asked yet.

        Raises:
            NotConfigured: nothing leads to a cluster.
        """
        with self._lock:
            if self._pool is None:
                found, namespace = _configured(self._options, self._backend)
                found.retries, found.connection_pool_maxsize = False, _CONNECTIONS
                rest: Any = importlib.import_module("kubernetes.client.rest")
                self._namespace = self._options.namespace or namespace
                self._configuration = found
                self._pool = rest.RESTClientObject(found).pool_manager
            assert self._pool is not None  # noqa: S101 - set above
            return self._pool

    def close(self) -> None:
        """Close every connection; the next call opens new ones."""
        with self._lock:
            if self._pool is not None:
                self._pool.clear()

    def authorization(self) -> dict[str, str]:
        """Return the header by which the API server knows this user, renewed where it is due."""
        found = self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"Authorization": found} if found else {}

    def get(self, path: str, **query: str | None) -> dict[str, Any]:
        """Return an object, or a list of objects.

        Raises:
            NotFound: the API server says that there is no such object.
            BackendUnknown: no answer, or one that means nothing.
        """
        return self.ask("GET", path, query=query)

    def rows(self, path: str, **query: str | None) -> list[dict[str, Any]]:
        """Return the objects of a list.

        Raises:
            BackendUnknown: no answer, or one that means nothing.
        """
        answer = self.get(path, **query)
        items = answer.get("items")
        if not str(answer.get("kind", "")).endswith("List") or not is_rows(items):
            raise self._meaningless(path)
        if not all(is_table(item) for item in items):
            raise self._meaningless(path)
        return [dict(item) for item in items]

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | None] | None = None,
        body: dict[str, Any] | None = None,
        content_type: str = _JSON,
    ) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer.

        Raises:
            NotFound: as in `get`.
            Conflict: the object exists, or is another one than was read.
            PermanentBackendError: the API server refuses this body or this user.
            BackendUnknown: no answer, or one that means nothing.
        """
        sent = None if body is None else json.dumps(body).encode()
        answer = self._send(method, path, query or {}, sent, content_type)
        try:
            found = json.loads(answer.data)
        except ValueError as exc:
            raise self._meaningless(path) from exc
        if not is_table(found) or not isinstance(found.get("kind"), str):
            raise self._meaningless(path)
        if answer.status >= HTTPStatus.BAD_REQUEST or found["kind"] == "Status":
            self._refuse(answer.status, dict(found), path)
        return dict(found)

    def read(self, path: str, **query: str | None) -> bytes:
        """Return the text at a path, such as a log.

        Raises:
            NotFound: as in `get`; also where a container has no log yet.
            BackendUnknown: no answer, or one that means nothing.
        """
        answer = self._send("GET", path, query, None, _JSON)
        if answer.status != HTTPStatus.OK:
            try:
                said = json.loads(answer.data)
            except ValueError as exc:
                raise self._meaningless(path) from exc
            if answer.status == HTTPStatus.BAD_REQUEST:
                raise NotFound(str(said))
            self._refuse(answer.status, said if is_table(said) else {}, path)
        return answer.data

    @contextmanager
    def translated(self, doing: str) -> Generator[None]:
        """Turn whatever the network does into `BackendUnknown`: the one place that does."""
        errors: Any = importlib.import_module("urllib3.exceptions")
        sockets: Any = importlib.import_module("websocket")
        try:
            yield
        except (errors.HTTPError, sockets.WebSocketException, OSError) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise BackendUnknown(
                f"the Kubernetes API server does not answer [backend={self._backend}, "
                f"server={self.server}, doing={doing}]: {reason}; it is asked again"
            ) from exc

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str | None],
        body: bytes | None,
        content_type: str,
    ) -> BaseHTTPResponse:
        from urllib3 import Timeout  # noqa: PLC0415 - loaded by who has a cluster

        pool = self.connect()
        given = {name: value for name, value in query.items() if value is not None}
        url = f"{self.server}{path}" + (f"?{urlencode(given)}" if given else "")
        headers = {"Accept": "*/*", "Content-Type": content_type, **self.authorization()}
        with self.translated(f"{method} {path}"):
            return pool.request(
                method,
                url,
                body=body,
                headers=headers,
                retries=False,
                timeout=Timeout(connect=_CONNECT_S, read=self._options.answer_s),
            )

    def _refuse(self, status: int, said: dict[str, Any], path: str) -> None:
        """Raise what a refusal means; a success that is told as a Status means nothing wrong."""
        if said.get("kind") != "Status" or said.get("apiVersion") != "v1":
            raise self._meaningless(path)
        if said.get("status") == "Success":
            return
        message = str(said.get("message", ""))
        text = f"{message or status} [backend={self._backend}, server={self.server}]"
        reason = said.get("reason")
        if status == HTTPStatus.NOT_FOUND and reason == "NotFound":
            raise NotFound(message)
        if status == HTTPStatus.CONFLICT:
            raise Conflict(message)
        if status == HTTPStatus.FORBIDDEN and "exceeded quota" not in message:
            raise PermanentBackendError(f"the API server forbids it: {text}: {_FORBIDDEN}")
        if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
            raise PermanentBackendError(f"the API server refuses it: {text}")
        raise TransientBackendError(f"the API server cannot do it now: {text}")

    def _meaningless(self, path: str) -> BackendUnknown:
        return BackendUnknown(
            f"the answer means nothing [backend={self._backend}, server={self.server}, "
            f"path={path}]: is something between here and the API server?"
        )


_FORBIDDEN = "give the worker's account this right, see `temporal-fabric doctor`"


def _configured(options: KubernetesOptions, backend: str) -> tuple[Any, str]:
    """Return the client's configuration and the namespace it names."""
    try:
        config: Any = importlib.import_module("kubernetes.config")
        client: Any = importlib.import_module("kubernetes.client")
    except ImportError as exc:
        raise NotConfigured(
            f"the Kubernetes client is not installed [backend={backend}]: "
            "pip install 'temporal-fabric[kubernetes]'"
        ) from exc
    found = client.Configuration()
    named = options.kubeconfig_path
    default = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    kubeconfig = any(Path(path).is_file() for path in (named or default).split(os.pathsep))
    try:
        if kubeconfig or named or options.context or not (ACCOUNT / "token").is_file():
            config.load_kube_config(
                config_file=named,
                context=options.context or None,
                client_configuration=found,
                persist_config=False,
            )
            return (found, _namespace_of(config, named, options.context))
        config.load_incluster_config(client_configuration=found)
        return (found, (ACCOUNT / "namespace").read_text().strip())
    except (config.ConfigException, OSError) as exc:
        why = str(exc).rstrip(".")
        raise NotConfigured(
            f"no configuration leads to a cluster [backend={backend}, "
            f"kubeconfig={named or default}, context={options.context or 'current'}]: {why}; "
            f"set kubeconfig and context in [backends.{backend}.options], or run the worker in "
            "a pod with a service account"
        ) from exc


def _namespace_of(config: Any, named: str | None, context: str) -> str:
    contexts, current = config.list_kube_config_contexts(config_file=named)
    chosen = next((row for row in contexts if row["name"] == context), current)
    return str(chosen["context"].get("namespace") or "default")

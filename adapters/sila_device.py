"""One SiLA 2 device: what it can do, and a command from its start to its outcome.

Every answer that is missing or means nothing is `BackendUnknown`. Only two things prove that a
command was not performed: it never left this host, or the device says that it does not accept
it. Everything else after a command was handed over is unknown.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.lab_protocol import plain
from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping

    from sila.client import Client, CommandExecution
    from sila.framework import Command, Feature

    from temporal_fabric.adapters.sila_options import SilaOptions

    Tell = Callable[[Mapping[str, object]], None]

_CANCEL = "CancelController"
_LOCK = "LockController"
_PAUSE = "PauseController"
"""The features of the SiLA standard that end executions, lock a server, let executions pause."""

_LOCKED_S = 3600
"""The lock ends by itself so long after the last command; it is renewed before each."""

_FOREIGN = "InvalidLockIdentifier"
_MS = 1000.0


class NotPerformed(TransientBackendError):
    """The device has not performed the command, for certain."""


class CommandFailed(PermanentBackendError):
    """The device has ended the command with an error; the message is the device's."""


class ExecutionForgotten(PermanentBackendError):
    """The device does not know this execution any more, and so not how it ended."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a command that has ended well."""

    responses: dict[str, Any] = field(default_factory=dict[str, Any])


class SilaDevice:
    """A connection to one SiLA server, made when it is needed.

    Args:
        options: How it is reached.
    """

    def __init__(self, options: SilaOptions) -> None:
        self.options = options
        self.badge = ""
        """What the device knows the run by that has it locked; empty for none."""

        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._cancelling = asyncio.Lock()
        self._cancelled: set[str] = set()

    async def client(self) -> Client:
        """Return the open connection, with the device's own feature definitions.

        Raises:
            BackendUnknown: nobody answers there, or not as a SiLA server.
        """
        async with self._connecting:
            if self._client is None:
                client = await self._made()
                try:
                    with _understood(f"cannot reach {self.options.address}"):
                        await client.open(timeout=self.options.timeout_s * _MS)
                except BaseException:
                    with suppress(Exception):
                        await client.close()
                    raise
                self._client = client
            return self._client

    async def _made(self) -> Client:
        try:
            from sila.client import Client, ClientConfig  # noqa: PLC0415 - takes a second
        except ImportError as exc:
            text = 'the SiLA client is not installed: pip install "temporal-fabric[sila]"'
            raise PermanentBackendError(text) from exc
        asked = self.options
        files = (asked.root_certificates, asked.certificate, asked.key)
        try:
            ca, chain, key = [await asyncio.to_thread(_content, path) for path in files]
        except OSError as exc:
            raise PermanentBackendError(f"a certificate cannot be read: {exc}") from exc
        config = ClientConfig(
            asked.host.strip("[]"),
            asked.port,
            tls=asked.tls,
            root_certificates=ca,
            certificate_chain=chain,
            private_key=key,
            default_timeout=asked.timeout_s * _MS,
        )
        return Client(config)

    async def features(self) -> list[Feature]:
        """Return what the device can do, by its own definitions."""
        return list((await self.client()).features.values())

    async def about(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        client = await self.client()
        with _understood(f"{self.options.address} does not answer"):
            name, uuid = await client.get_server_name(), await client.get_server_uuid()
        features = [str(one.fully_qualified_identifier) for one in client.features.values()]
        return {"server": name, "uuid": uuid, "features": features}

    async def command(self, feature: str, name: str) -> Command:
        """Return a command by the names that a request gives.

        Raises:
            PermanentBackendError: the device has no such command.
        """
        found = find_command(await self.features(), feature, name)
        if found is None:
            raise PermanentBackendError(f"the device has no command {feature}.{name}")
        return found

    async def send(self, command: Command, parameters: Mapping[str, Any]) -> str | Outcome:
        """Let the device begin; return the UUID of the execution, or its outcome at once.

        Raises:
            NotPerformed: it has not begun, and may be asked again.
            CommandFailed: it has refused the command, or ended it with an error.
            BackendUnknown: nobody knows.
        """
        with _understood(f"{command.identifier} was sent, and no answer came", sending=True):
            sender: Any = command
            answer: Any = await sender.execute(dict(parameters), await self._badges(command))
            if not command.observable:
                return Outcome(plain(dict(answer)))
            answer.cancel()  # ends the subscription, not the command
            return str(answer.command_execution_uuid)

    async def _badges(self, command: Command) -> list[Any]:
        """Return what a command to a locked device has to show."""
        client: Any = await self.client()
        asked: list[Any] = client.get_metadata_by_affect(command.fully_qualified_identifier)
        return [
            await one.from_native(client, self.badge)
            for one in asked
            if self.badge and one.identifier == "LockIdentifier"
        ]

    async def lock(self) -> None:
        """Lock the device for the run of the badge, or renew that; a device may have no lock.

        That somebody else has it locked shows when a command is sent: then it is `NotPerformed`.
        """
        given = {"LockIdentifier": self.badge, "Timeout": _LOCKED_S}
        await self._lock_command("LockServer", given)

    async def unlock(self) -> None:
        """Leave the device to others, if the run of the badge has it locked."""
        with suppress(TransientBackendError):
            await self._lock_command("UnlockServer", {"LockIdentifier": self.badge})

    async def _lock_command(self, name: str, given: Mapping[str, Any]) -> None:
        command = find_command(await self.features(), _LOCK, name)
        if command is not None and self.badge:
            with suppress(CommandFailed):  # it is locked, or it is not: both are looked at later
                await self.send(command, given)

    @asynccontextmanager
    async def following(self, command: Command, uuid: str, tell: Tell) -> AsyncGenerator[Execution]:
        """Follow an execution, also one that another process has begun.

        Args:
            command: The command that it executes.
            uuid: As the device calls it.
            tell: Takes what it says on the way: its progress and its intermediate responses.
        """
        from sila.client import CommandExecution  # noqa: PLC0415 - takes a second

        followed = CommandExecution(command, uuid)  # type: ignore[arg-type]
        news = asyncio.Event()
        streams = [
            asyncio.create_task(_heard(followed.subscribe_status(), news, tell, _progress)),
            asyncio.create_task(
                _heard(followed.subscribe_intermediate_responses(), news, tell, _numbers)
            ),
        ]
        try:
            yield Execution(followed, news)
        finally:
            followed.cancel()
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    async def cancel(self, uuid: str) -> bool:
        """Ask the device to end one execution; return whether it can.

        Whoever ends a run and whoever drives it both ask: the device hears it once, for a
        program may take a second request for another one.
        """
        async with self._cancelling:
            if uuid not in self._cancelled:
                command = await self._configured(self.options.cancel, _CANCEL, "CancelCommand")
                if not await self._told(command, uuid):
                    return False
                self._cancelled.add(uuid)
            return True

    async def halt(self) -> bool:
        """Let the device stop whatever it does, at once; return whether it can."""
        return await self._told(await self._configured(self.options.halt, _CANCEL, "CancelAll"))

    async def pause(self, uuid: str) -> bool:
        """Let one execution stand still; return whether the device says that it does.

        It refuses that for one that stands still already, as after an answer that was lost:
        then it is asked again for one that goes on.
        """
        command = await self._configured(self.options.pause, _PAUSE, "Pause")
        if command is None:
            return False
        for _ in range(2):
            with suppress(CommandFailed, NotPerformed):
                await self.send(command, dict.fromkeys(command.parameters, uuid))
                return True
            await self.resume(uuid)
        return False

    async def resume(self, uuid: str) -> None:
        """Let one execution go on; one that does not stand still goes on as it did."""
        await self._told(await self._configured(self.options.resume, _PAUSE, "Resume"), uuid)

    async def _configured(self, configured: str, feature: str, name: str) -> Command | None:
        """Return the command that the options name, else the standard's; None for neither."""
        other, _, named = configured.rpartition(".")
        return find_command(await self.features(), other or feature, named or name)

    async def _told(self, command: Command | None, *arguments: str) -> bool:
        """Send a command about others; return whether the device has it."""
        if command is None:
            return False
        given = dict(zip(command.parameters, arguments, strict=False))
        # A device on which there is nothing to do may say so with an error: what has become
        # of the others is looked at afterwards, never believed.
        with suppress(CommandFailed, NotPerformed):
            await self.send(command, given)
        return True

    async def drop(self) -> None:
        """Give the connection up, so that the next call makes a new one."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                await client.close()

    async def aclose(self) -> None:
        """End the connection; the device goes on with what it does."""
        await self.drop()


class Execution:
    """An execution that is being followed."""

    def __init__(self, followed: CommandExecution, news: asyncio.Event) -> None:
        self._followed, self._news = followed, news

    async def look(self) -> Outcome | None:
        """Return its outcome, or None while it is being performed.

        Raises:
            CommandFailed: it has ended with an error.
            ExecutionForgotten: the device does not know it.
            BackendUnknown: no trustworthy answer.
        """
        from sila.framework import CommandExecutionNotFinished  # noqa: PLC0415 - as above

        with _understood("the device does not say how its command stands"):
            try:
                answer = await self._followed.get_responses()
            except CommandExecutionNotFinished:
                return None
            return Outcome(plain(dict(answer)))

    async def pause(self, limit_s: float) -> None:
        """Let some time pass, less where the device has news."""
        self._news.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), max(0.0, limit_s))


class _Understood:
    """Turns the errors of the client into the fabric's own."""

    def __init__(self, what: str, *, sending: bool = False) -> None:
        self._what, self._sending = what, sending

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, _OWN):
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> Exception:
        import sila.framework as sila  # noqa: PLC0415 - takes a second

        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, sila.InvalidCommandExecutionUUID):
            return ExecutionForgotten("the device does not know this execution any more")
        refused = (
            sila.CommandExecutionNotAccepted,
            sila.InvalidMetadata,
            sila.NoMetadataAllowed,
        )
        if self._sending and isinstance(error, refused):
            return NotPerformed(f"the device does not take it now: {error}")
        if isinstance(error, sila.DefinedExecutionError):
            if error.identifier == _FOREIGN:
                return NotPerformed("somebody else has locked the device")
            return CommandFailed(f"{error.identifier}: {error}")
        garbled = isinstance(error.__cause__, ValueError | sila.DecodeError)
        if isinstance(error, sila.UndefinedExecutionError | sila.ValidationError) and not garbled:
            return CommandFailed(str(error))
        return BackendUnknown(f"{self._what} ({told})")


_OWN = (TransientBackendError, PermanentBackendError)


def _understood(what: str, *, sending: bool = False) -> _Understood:
    return _Understood(what, sending=sending)


def find_command(features: list[Feature], feature: str, name: str) -> Command | None:
    """Return a command of a feature, which is named in full or by its identifier alone.

    A short name that several features have means none of them.
    """
    found = [one for one in features if _is_named(one, feature)]
    if len(found) != 1:
        return None
    commands: Mapping[str, Command] = found[0].commands
    return next((one for one in commands.values() if one.identifier == name), None)


def _is_named(feature: Feature, name: str) -> bool:
    return name in {feature.identifier, str(feature.fully_qualified_identifier)}


def _content(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


async def _heard(
    subscribing: Coroutine[Any, Any, AsyncIterator[Any]],
    news: asyncio.Event,
    tell: Tell,
    read: Callable[[Any], Mapping[str, object]],
) -> None:
    """Tell what a subscription says; that it ends, or breaks, is news for who looks."""
    try:
        async for said in await subscribing:
            tell(read(said))
    except Exception:  # noqa: BLE001 - telemetry: what counts is what `look` says
        return
    finally:
        news.set()


def _progress(info: Any) -> Mapping[str, object]:
    return {"progress": float(info.progress.value)} if info.progress is not None else {}


def _numbers(responses: Any) -> Mapping[str, object]:
    return {
        name: value
        for name, value in dict(responses).items()
        if isinstance(value, int | float | str) and not isinstance(value, bool)
    }

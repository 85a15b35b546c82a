"""Finding adapters: entry points of the group ``temporal_fabric.adapters``, by kind."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.six_methods import SixMethods, has_six_methods
from temporal_fabric.errors import Problem, RequestRejected

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.adapters.six_methods import BackendAdapter
    from temporal_fabric.config import BackendConfig, Settings

GROUP = "temporal_fabric.adapters"


def kinds() -> list[str]:
    """Return the kinds that are installed."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def build(config: BackendConfig, settings: Settings, host: str) -> Adapter:
    """Make the adapter of one configured backend; no effect, the backend is not asked.

    The entry point names a callable ``(config, settings, host) -> Adapter``, which raises as
    this does; or a class with the six methods of `temporal_fabric.adapters.six_methods`, made
    with the backend's options.

    Raises:
        RequestRejected: no installed adapter has this kind, or options are wrong; every one
            is a problem.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == config.kind:
            found = _loaded(entry, config, settings)
            if has_six_methods(found):
                return _bridged(found, config, settings, host)
            adapter: Adapter = found(config, settings, host)
            return adapter
    found = kinds()
    text = f"no installed adapter has this kind; there are {', '.join(found) or 'none'}"
    problem = Problem(
        "E_RANGE",
        f"/backends/{config.name}/kind",
        text,
        actual=config.kind[:80],
        allowed=tuple(found),
    )
    raise RequestRejected([problem], source=settings.source)


def _loaded(entry: EntryPoint, config: BackendConfig, settings: Settings) -> Any:
    """Import what makes the adapters of a kind; a kind of ours may need one of our extras."""
    try:
        return entry.load()
    except ImportError as exc:
        ours = entry.dist is not None and entry.dist.name == "temporal-fabric"
        remedy = f"pip install 'temporal-fabric[{entry.name}]'" if ours else "install what it needs"
        text = f"the adapter of this kind cannot be imported, {exc}: {remedy}"
        problem = Problem("E_RANGE", f"/backends/{config.name}/kind", text, actual=config.kind[:80])
        raise RequestRejected([problem], source=settings.source) from exc


def _bridged(
    found: Callable[..., BackendAdapter], config: BackendConfig, settings: Settings, host: str
) -> Adapter:
    try:
        inner = found(**config.options)
    except (TypeError, ValueError) as exc:
        problem = Problem("E_RANGE", f"/backends/{config.name}/options", str(exc))
        raise RequestRejected([problem], source=settings.source) from exc
    return SixMethods(inner, config, settings, host)


def build_all(settings: Settings, host: str) -> dict[str, Adapter]:
    """Make the adapters of every configured backend, by instance name.

    Raises:
        RequestRejected: with what is wrong with any of them.
    """
    problems: list[Problem] = []
    found: list[Adapter] = []
    for config in settings.backends:
        try:
            found.append(build(config, settings, host))
        except RequestRejected as exc:
            problems += exc.problems
    if problems:
        raise RequestRejected(problems, source=settings.source)
    return {adapter.get_name(): adapter for adapter in found}

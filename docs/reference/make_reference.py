# ruff: noqa: INP001 - a script beside the pages it fills in, not a package
"""Fill in the generated parts of the reference pages from the code.

Run it from anywhere: ``python docs/reference/make_reference.py`` writes the pages,
``--check`` only says whether they are up to date. A generated part stands between
``<!-- generated: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from temporal_fabric.cli.app import cli
from temporal_fabric.flows.spec import FlowSpec
from temporal_fabric.glossary import Entry, look_up
from temporal_fabric.reasons import REASONS
from temporal_fabric.recorder import schema as columns
from temporal_fabric.requests import CODES, json_schema
from temporal_fabric.states import FINAL, MOVES, Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FOLDER = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

STATES = {
    State.QUEUED: "accepted, waiting for a place",
    State.PREPARING: "a place is granted; the payload does not run yet",
    State.RUNNING: "the payload's process exists",
    State.COLLECTING: "the payload ended; its outputs are hashed, or its effects rolled back",
    State.RETRYING: "an attempt failed; the next one waits for its pause",
    State.PAUSED: "standing still until it is resumed; a running payload keeps its place",
    State.HELD: "a person is asked what nobody else can know; `resolve` answers",
    State.CANCELLING: "cancellation was asked for; something of the run may still be alive",
    State.SUCCEEDED: "exit code 0, every declared output there and hashed, capsule sealed",
    State.FAILED: "ended without success; the reason says why",
    State.CANCELED: "cancelled, and nothing of it is alive",
}

_SECTIONS = (
    ("ExecutionRequest", "request"),
    ("ContainerPayload", "payload.container"),
    ("ProcessPayload", "payload.process"),
    ("Input", "payload.process.inputs[]"),
    ("Output", "payload.process.outputs[]"),
    ("PythonPayload", "payload.python"),
    ("FlowPayload", "payload.flow"),
    ("FlowPolicy", "payload.flow.policy"),
    ("FlowSchedule", "payload.flow.schedule"),
    ("FlowCertificates", "payload.flow.certificates"),
    ("FlowBudgets", "payload.flow.budgets"),
    ("Environment", "environment"),
    ("Requirements", "requirements"),
    ("Cpu", "requirements.resources[] with type: cpu"),
    ("Memory", "requirements.resources[] with type: memory"),
    ("Gpu", "requirements.resources[] with type: gpu"),
    ("Limits", "limits"),
    ("Retry", "retry"),
    ("Checkpoint", "checkpoint"),
    ("Notification", "notify[]"),
    ("Compensation", "rollback[]"),
)

_FLOW = (
    ("FlowSpec", "the specification"),
    ("Slot", "state.NAME"),
    ("InvariantSpec", "state.NAME.invariants.NAME"),
    ("Values", "data.NAME with type: values"),
    ("Constant", "data.NAME with type: constant"),
    ("Normal", "data.NAME with type: normal"),
    ("File", "data.NAME with type: file"),
    ("Observed", "data.NAME with type: observed"),
    ("IdentityOperator", "operators.NAME with type: identity"),
    ("DenseOperator", "operators.NAME with type: dense"),
    ("MaskOperator", "operators.NAME with type: mask"),
    ("ConvolutionOperator", "operators.NAME: convolutions"),
    ("GradientOperator", "operators.NAME with type: gradient"),
    ("SumOperator", "operators.NAME with type: sum"),
    ("CompositionOperator", "operators.NAME with type: composition"),
    ("OwnOperatorSpec", "operators.NAME with type: own"),
    ("SmoothSpec", "terms[]: smooth"),
    ("QuadraticFormSpec", "terms[] with type: quadratic_form"),
    ("L1Spec", "terms[] with type: l1 or l0"),
    ("WaveletL1Spec", "terms[] with type: wavelet_l1"),
    ("GroupSpec", "terms[] with type: group_l1"),
    ("TreeSpec", "terms[] with type: tree"),
    ("TvSpec", "terms[] with type: tv"),
    ("ConstraintSpec", "terms[]: constraints"),
    ("LensSpec", "terms[].lens and lens.candidates[]"),
    ("PhysicsSpec", "physics.NAME"),
    ("HoldoutSpec", "holdout.NAME"),
    ("LensPolicy", "lens"),
    ("FlowPolicy", "flow"),
    ("MultiscaleSchedule", "multiscale"),
    ("SparsityPolicy", "sparsity"),
    ("GapDial", "gap_dial"),
    ("CertificationProfile", "certification"),
    ("Budget", "budget"),
)


def states() -> str:
    """Return the table of states."""
    rows = [
        (f"`{state}`", STATES[state], ", ".join(f"`{s}`" for s in State if s in MOVES[state]))
        for state in State
    ]
    final = ", ".join(f"`{state}`" for state in State if state in FINAL)
    return f"{_table(('state', 'meaning', 'may be followed by'), rows)}\n\nFinal: {final}.\n"


def reasons() -> str:
    """Return the table of reason tokens."""
    rows = [(_link(r, "reasons.md"), REASONS[r].means) for r in Reason]
    return f"{_table(('reason', 'meaning'), rows)}\n"


def codes() -> str:
    """Return the table of error codes."""
    rows = [
        (_link(c.code, "error-codes.md"), _prose(c.meaning), _prose(c.remedy))
        for c in CODES.values()
    ]
    return f"{_table(('code', 'meaning', 'what to do'), rows)}\n"


def each_code() -> str:
    """Return a section for each error code, its example's answer asked of admission now."""
    return "\n".join(_section(look_up(code)) for code in CODES)


def each_reason() -> str:
    """Return a section for each reason token."""
    return "\n".join(_section(look_up(reason)) for reason in Reason)


def commands() -> str:
    """Return the help of every command."""
    return "\n".join(_command(name, command) for name, command in _flat(cli, ""))


def fields() -> str:
    """Return a table of fields for each part of a request that this version runs."""
    schema = json_schema()
    parts = [_fields(title, schema["$defs"].get(name, schema)) for name, title in _SECTIONS]
    return "\n".join(parts)


def flow_fields() -> str:
    """Return a table of fields for each part of a flow's specification."""
    schema = FlowSpec.model_json_schema()
    parts = [(title, schema["$defs"].get(name, schema)) for name, title in _FLOW]
    text = "\n".join(_fields(title, model, model.get("description", "")) for title, model in parts)
    # Classes of Python say nothing to who writes YAML.
    models = re.compile(rf"\| (?:{'|'.join(schema['$defs'])})(?: or null)? \|")
    text = models.sub("| mapping |", text).replace(" or null |", " |")
    return text.replace("list of resource", "list of terms").replace("list of LensSpec", "list")


def tables() -> str:
    """Return the columns of every Parquet file we write, from their schemas."""
    files = {
        "telemetry.parquet": columns.telemetry(),
        "events.parquet": columns.events(),
        "telemetry-NNNNNN.parquet, while it runs": columns.segment(),
    }
    parts: list[str] = []
    for title, schema in files.items():
        rows = [
            (f"`{f.name}`", str(f.type), _told(f.metadata, "unit"), _told(f.metadata, "meaning"))
            for f in schema
        ]
        version = _told(schema.metadata, "schema_version")
        heads = ("column", "type", "unit", "meaning")
        parts.append(f"## {title}\n\n`schema_version` {version}\n\n{_table(heads, rows)}\n")
    return "\n".join(parts)


def _told(metadata: Mapping[bytes, bytes], key: str) -> str:
    return metadata[key.encode()].decode()


PARTS: dict[str, Callable[[], str]] = {
    "states": states,
    "reasons": reasons,
    "codes": codes,
    "each_code": each_code,
    "each_reason": each_reason,
    "commands": commands,
    "fields": fields,
    "flow_fields": flow_fields,
    "tables": tables,
}


def filled(text: str) -> str:
    """Return a page with its generated parts as the code has them now."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[3]}", text)


def outdated() -> list[Path]:
    """Return the pages whose generated parts differ from the code."""
    pages = sorted(FOLDER.glob("*.md"))
    return [page for page in pages if filled(page.read_text()) != page.read_text()]


def main(args: Sequence[str]) -> int:
    """Write the pages, or with ``--check`` say which are not up to date."""
    pages = outdated()
    for page in pages:
        print(page.name)  # noqa: T201 - what a script is for
        if "--check" not in args:
            page.write_text(filled(page.read_text()))
    return int(bool(pages) and "--check" in args)


def _link(token: str, page: str) -> str:
    return f"[`{token}`]({page}#{token.lower()})"


def _section(found: Entry) -> str:
    lines = [
        f"## {found.token}\n",
        f"{_prose(found.title)[:1].upper()}{_prose(found.title)[1:]}.\n",
    ]
    lines += [f"**{name}.** {_prose(text)}\n" for name, text in found.parts.items()]
    if found.example:
        file, text = found.example.file, found.example.text
        kind = {"job.sh": "bash", "request.json": "json"}.get(file, "yaml")
        command = f"$ temporal-fabric validate {file}"
        # The answer is asked anew here, and by a test of the command itself.
        lines += [
            f"```{kind}\n{text}```\n",
            f"```text\n{command}\n{found.example.answer}\n```\n",
        ]
    return "\n".join(lines)


def _flat(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from _flat(command, f"{prefix}{name} ")


def _command(name: str, command: click.Command) -> str:
    # A fixed width and no colours: the page must not depend on the terminal.
    context = click.Context(
        command,
        info_name=f"temporal-fabric {name}",
        terminal_width=88,
        max_content_width=88,
        color=False,
        help_option_names=["-h", "--help"],
    )
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    return f"## {name}\n\n```text\n{text}\n```\n"


def _fields(title: str, model: Mapping[str, Any], what: str = "") -> str:
    required = set(model.get("required", ()))
    rows = [
        (f"`{name}`", _type(field), _default(name, field, required), _meaning(field))
        for name, field in model["properties"].items()
    ]
    said = f"{_prose(what)}\n\n" if what else ""
    return f"### {title}\n\n{said}{_table(('field', 'type', 'default', 'meaning'), rows)}\n"


def _type(field: Mapping[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_types(field)))


def _types(field: Mapping[str, Any]) -> Iterator[str]:
    if "enum" in field or "const" in field:
        yield ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    elif "$ref" in field:
        yield str(field["$ref"]).rpartition("/")[2]
    elif "anyOf" in field:
        for option in field["anyOf"]:
            yield from _types(option)
    elif "oneOf" in field:
        yield "resource"
    elif field.get("type") == "array":
        yield f"list of {next(_types(field.get('items', {})))}"
    else:
        yield _names(field.get("type", "any"))


def _names(kind: str | list[str]) -> str:
    words = {"object": "mapping", "integer": "whole number", "boolean": "true or false"}
    return " or ".join(words.get(k, k) for k in ([kind] if isinstance(kind, str) else kind))


def _default(name: str, field: Mapping[str, Any], required: set[str]) -> str:
    if name in required:
        return "required"
    value = field.get("default")
    return f"`{value}`" if value not in (None, {}, []) and not isinstance(value, dict) else ""


def _meaning(field: Mapping[str, Any]) -> str:
    return _prose(" ".join(str(field.get("description", "")).split()))


def _prose(text: str) -> str:
    # Brackets would be read as a link.
    return text.replace("[", "\\[").replace("<", "&lt;")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

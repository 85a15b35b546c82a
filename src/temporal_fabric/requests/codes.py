"""Every code of the error contract, with its meaning and what to do about it.

Messages and documentation are written from this table; nothing else lists the codes.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CODES", "Code", "remedy"]


@dataclass(frozen=True, slots=True)
class Code:
    """One code of the error contract."""

    code: str
    title: str
    meaning: str
    remedy: str
    admission: bool = True
    """Whether reading and validating a request alone can raise it."""


def _table(*rows: Code) -> dict[str, Code]:
    return {row.code: row for row in rows}


CODES: dict[str, Code] = _table(
    Code(
        "E_AUTH",
        "not authenticated",
        "The server refuses the caller's credential: it is missing, wrong, expired or not enough.",
        "Check TEMPORAL_PROFILE, TEMPORAL_API_KEY, the TLS settings and the namespace.",
        admission=False,
    ),
    Code(
        "E_TENANT",
        "tenant not allowed",
        "The tenant is unknown, or the caller may not act for it, or an input is another tenant's.",
        "Use your own tenant, or ask the server's owner to be added.",
        admission=False,
    ),
    Code(
        "E_QUOTA",
        "quota exceeded",
        "The tenant has as many experiments open as it may have.",
        "Wait for some of them to end, cancel some, or ask for a larger quota.",
        admission=False,
    ),
    Code(
        "E_RATE",
        "too many requests",
        "The tenant starts experiments faster than it may.",
        "Wait for the time the answer names, then send the request again.",
        admission=False,
    ),
    Code(
        "E_TOO_LARGE",
        "too large",
        "The body, a string or a list is larger than its limit.",
        "Shorten it, or put the data in a file and refer to it by URI.",
    ),
    Code(
        "E_ENCODING",
        "not UTF-8",
        "The text is not valid Unicode in UTF-8.",
        "Save the file as UTF-8.",
    ),
    Code(
        "E_PARSE",
        "not readable",
        "The text is neither valid YAML nor valid JSON.",
        "Correct the syntax near the given line.",
    ),
    Code(
        "E_DUP_KEY",
        "key set twice",
        "A mapping sets the same key twice.",
        "Keep one of the two.",
    ),
    Code(
        "E_YAML_FEATURE",
        "YAML feature not accepted",
        "Anchors, aliases, tags, merge keys, directives and several documents are not accepted.",
        "Write the value out in plain YAML.",
    ),
    Code(
        "E_DEPTH",
        "nested too deeply",
        "Mappings and lists are nested deeper than the limit.",
        "Flatten the structure, or put the data in a file and refer to it by URI.",
    ),
    Code(
        "E_UNKNOWN_FIELD",
        "unknown field",
        "The field does not exist in this place.",
        "Correct the spelling or remove the field.",
    ),
    Code(
        "E_MISSING",
        "missing",
        "A required field is absent.",
        "Add the field.",
    ),
    Code(
        "E_TYPE",
        "wrong type",
        "The value has another type than the field takes.",
        "Write the value in the type that the message names.",
    ),
    Code(
        "E_RANGE",
        "out of range",
        "The value is outside the range, or not among the values, that the field takes.",
        "Use a value within the range that the message names.",
    ),
    Code(
        "E_NAME",
        "not a valid name",
        "A name has characters, or a length, that names do not take.",
        "Use 1 to 63 of a-z 0-9 . _ - and start with a letter or a digit.",
    ),
    Code(
        "E_CONFLICT",
        "contradiction",
        "Two parts of the request, or the request and its id, contradict each other.",
        "Keep one of the two, or make them agree.",
    ),
    Code(
        "E_EXPR_SYNTAX",
        "expression not readable",
        "The expression is not valid CEL, or does not give the type that its place takes.",
        "Correct the expression near the given column.",
    ),
    Code(
        "E_EXPR_NAME",
        "unknown function",
        "The expression calls a function that does not exist.",
        "Use CEL's own functions and operators; free names are backend labels.",
    ),
    Code(
        "E_EXPR_COST",
        "expression too costly",
        "The expression could take too much time or memory.",
        "Split it into several constraints, with at most one comprehension each.",
    ),
    Code(
        "E_IMAGE",
        "not an image reference",
        "The value is not a container image reference.",
        "Write [registry/]name[:tag][@sha256:digest] with a name in lower case.",
    ),
    Code(
        "E_ISOLATION",
        "isolation not available",
        "The isolation asked for does not exist, or cannot be enforced there.",
        "Choose one of the listed levels, or another backend.",
    ),
    Code(
        "E_COMMAND",
        "not a command",
        "The command is empty or holds a character that no program can receive.",
        "Give the program first, then its arguments, one string each.",
    ),
    Code(
        "E_ENV",
        "environment variable not accepted",
        "The variable's name is malformed or reserved, or its value cannot be passed on.",
        "Rename the variable, or leave it to the fabric.",
    ),
    Code(
        "E_ENTRYPOINT",
        "not an entry point",
        "The value names neither a function nor a Python file.",
        "Write package.module:function, file.py or file.py:function.",
    ),
    Code(
        "E_URI_SCHEME",
        "URI scheme not accepted",
        "The URI's scheme is missing, or not accepted in this place.",
        "Use one of the listed schemes.",
    ),
    Code(
        "E_URI_HOST",
        "URI host not accepted",
        "The URI's host is malformed, or is an address inside the network.",
        "Use a public host name, or a bucket name in lower case.",
    ),
    Code(
        "E_URI_CRED",
        "credential in a URI",
        "The URI carries a user name, password, signature or token.",
        "Remove it and refer to the credential under `secrets`.",
    ),
    Code(
        "E_PATH",
        "path not accepted",
        "The path leaves its folder, is malformed, or names a protected place.",
        "Use a plain path without '..'.",
    ),
    Code(
        "E_OUTPUT_KIND",
        "unknown kind of output",
        "The output's type is not among the known ones.",
        "Use one of the listed types, or leave it out.",
    ),
    Code(
        "E_ARCHIVE",
        "archive not accepted",
        "The file is not an archive of an accepted kind, or the archive is unsafe to unpack.",
        "Use a .tar.gz, .tar.zst, .tar.bz2 or .zip made of plain files and folders.",
    ),
    Code(
        "E_SECRET",
        "secret not accepted",
        "A secret is written out, or the reference to it is malformed.",
        "Declare it under `secrets` as secret://env/NAME or secret://file/NAME.",
    ),
    Code(
        "E_SLURM_FIELD",
        "Slurm option not accepted",
        "A #SBATCH option is unknown, malformed or has no equivalent here.",
        "Remove the option, or express it in the request.",
    ),
    Code(
        "E_SSH_TARGET",
        "SSH target not accepted",
        "A request names an SSH target, or a backend's configuration has a malformed one.",
        "Use the name of a configured backend; how it is reached stands in fabric.toml.",
    ),
    Code(
        "E_HOSTKEY",
        "host key not known",
        "The key of a backend's login node, or its certificate, is unknown or has changed.",
        "Compare it with what the host's owner says, then pin it in the backend's options.",
        admission=False,
    ),
    Code(
        "E_DATA",
        "data not usable",
        "Data is missing, truncated or of another format than declared, such as an output that a "
        "finished experiment does not have.",
        "Check the file or output that the message names.",
        admission=False,
    ),
    Code(
        "E_INTEGRITY",
        "digest not right",
        "A digest is malformed or does not match the content.",
        "Give the SHA-256 of the content as 64 hexadecimal digits.",
    ),
    Code(
        "E_FLOW",
        "flow not valid",
        "The flow's specification is incomplete or contradicts itself.",
        "Complete the specification that the message names.",
    ),
    Code(
        "E_PIPELINE",
        "pipeline not valid",
        "The pipeline's blueprint is incomplete or contradicts itself.",
        "Complete the part that the message names.",
    ),
    Code(
        "E_AGENT",
        "agent not valid",
        "The agent's settings are incomplete or contradict each other.",
        "Complete the part that the message names.",
    ),
    Code(
        "E_LAB",
        "laboratory step not valid",
        "A laboratory step is incomplete, or outside its own limits.",
        "Correct the step that the message names.",
    ),
    Code(
        "E_NO_BACKEND",
        "no backend could run it",
        "No configured backend could ever run the request.",
        "Ask for less, relax a constraint, or configure a backend that fits.",
        admission=False,
    ),
)


def remedy(code: str) -> str:
    """Return what to do about a code; empty for a code outside the table."""
    row = CODES.get(code)
    return "" if row is None else row.remedy

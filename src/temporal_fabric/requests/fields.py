"""The types of single fields, and the base of every model of a request.

A check raises `refuse(code, what)`: the pydantic error type is then the contract's code, and
`what` is the sentence a person reads. Every check is a pure function of one value.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeGuard

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    Strict,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from temporal_fabric.requests import limits
from temporal_fabric.requests.quantities import duration_seconds, size_bytes, size_gigabytes
from temporal_fabric.requests.uris import READABLE, WRITABLE, uri_fault
from temporal_fabric.shapes import is_table

__all__ = [
    "AlsoAccepts",
    "Bytes",
    "EntryPoint",
    "EnvKey",
    "Folder",
    "Gigabytes",
    "HttpsUri",
    "Image",
    "InputUri",
    "Items",
    "Model",
    "Name",
    "OutputUri",
    "Path",
    "PathOrUri",
    "Seconds",
    "SecretRef",
    "Sha256",
    "Title",
    "choice",
    "has_control",
    "is_models",
    "refuse",
]

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"


def refuse(
    code: str,
    what: str,
    *,
    limit: float | str | None = None,
    allowed: tuple[str, ...] | None = None,
) -> PydanticCustomError:
    """Return the error to raise for a value; `what` must not hold a credential."""
    # The sentence travels in the context: pydantic would fill in braces of a template.
    return PydanticCustomError(
        "fabric_refused", "{what}", {"code": code, "what": what, "limit": limit, "allowed": allowed}
    )


class AlsoAccepts:
    """Adds a short form to the JSON Schema of a field whose validator reads one."""

    def __init__(self, *forms: Mapping[str, Any]) -> None:
        self.forms = [dict(form) for form in forms]

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the field's own schema beside the short forms."""
        return {"anyOf": [handler(core), *self.forms]}


class Model(BaseModel):
    """Base of every model of a request: strict, frozen, and without unknown fields."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, data: Any, info: ValidationInfo) -> Any:
        # `env:` with nothing behind it is null in YAML and means that there is none.
        if not is_table(data):
            return data
        if is_models(info.context):
            # Tells the wording of problems which fields would have been known here.
            info.context[id(data)] = cls
        if None not in data.values():
            return data
        known = cls.field_names()
        return {key: value for key, value in data.items() if value is not None or key not in known}

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the names of the fields as a request spells them."""
        return tuple(field.serialization_alias or name for name, field in cls.model_fields.items())


def is_models(context: object) -> TypeGuard[dict[int, type[Model]]]:
    """Return whether a validation is admission's, which asks for the models it meets."""
    return isinstance(context, dict)


def choice(code: str, noun: str, *values: str) -> BeforeValidator:
    """Return a check that a string is one of some values, under a code of its own."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in values:
            raise refuse(code, f"is not a known {noun}", allowed=values)
        return value

    return BeforeValidator(check)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED_ENV = re.compile(
    r"(?:FABRIC|SLURM|SBATCH|SPANK)_.*"
    r"|LD_PRELOAD|LD_AUDIT|BASH_ENV|PROMPT_COMMAND|TRACEPARENT"
    r"|CUDA_VISIBLE_DEVICES|NVIDIA_VISIBLE_DEVICES"
)
_SECRET_REF = re.compile(r"secret://(?:env|file)/[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_SHA256 = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_TREE = re.compile(r"tree://sha256/[0-9a-f]{64}")
_MODULE = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:"
    r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
)
_FILE_ENTRY = re.compile(r"([^:]+\.py)(?::[A-Za-z_][A-Za-z0-9_]*)?")
_PROTECTED = ("proc", "sys", "dev")


def has_control(value: str) -> bool:
    """Return whether text holds a character that steers a terminal."""
    return _CONTROL.search(value) is not None


def _title(value: str) -> str:
    if has_control(value):
        raise refuse("E_NAME", "has a control character; remove it")
    return value


def check_path(value: str) -> str:
    """Refuse a path that climbs, is malformed, or names a place of the kernel."""
    if has_control(value):
        raise refuse("E_PATH", "has a control character")
    if len(value.encode()) > limits.PATH_BYTES:
        raise refuse("E_PATH", "is too long", limit=limits.PATH_BYTES)
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refuse("E_PATH", "climbs with '..'; write the path out")
    if not parts and value not in (".", "./"):
        raise refuse("E_PATH", "names nothing")
    if value.startswith("/") and parts[0] in _PROTECTED:
        raise refuse(
            "E_PATH", f"is below /{parts[0]}, which belongs to the kernel; choose another place"
        )
    if value.startswith(("~", "-", "@")):
        # Tools on the way read these as a home folder, an option, or a file of options.
        raise refuse("E_PATH", f"starts with {value[0]!r}; write ./{value[:1]}... or a full path")
    return value


def _uri(schemes: tuple[str, ...]) -> Callable[[str], str]:
    def check(value: str) -> str:
        fault = uri_fault(value, schemes)
        if fault is not None:
            raise refuse(fault.code, fault.what, allowed=fault.allowed)
        return value

    return check


def _path_or_uri(value: str) -> str:
    return _uri(READABLE)(value) if "://" in value else check_path(value)


def _folder(value: str) -> str:
    return value if _TREE.fullmatch(value) else _path_or_uri(value)


def _image(value: str) -> str:
    if len(value) > limits.IMAGE_CHARS or not _IMAGE.fullmatch(value):
        raise refuse("E_IMAGE", "is not an image reference such as python:3.12-slim")
    return value


def _env_key(value: str) -> str:
    if not _ENV_KEY.fullmatch(value):
        raise refuse("E_ENV", "is not a name of A-Z a-z 0-9 _ that does not start with a digit")
    if _RESERVED_ENV.fullmatch(value):
        raise refuse("E_ENV", "is set by the fabric or changes how programs load")
    return value


def _secret_ref(value: str) -> str:
    if not _SECRET_REF.fullmatch(value):
        raise refuse(
            "E_SECRET", "is not a reference; write secret://env/NAME or secret://file/NAME"
        )
    return value


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise refuse("E_INTEGRITY", "is not a SHA-256 digest of 64 hexadecimal digits")
    return value if value.startswith("sha256:") else f"sha256:{value}"


def _entry_point(value: str) -> str:
    if _MODULE.fullmatch(value):
        return value
    file = _FILE_ENTRY.fullmatch(value)
    if file is None:
        raise refuse("E_ENTRYPOINT", "is neither package.module:function nor a .py file")
    check_path(file[1])
    return value


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    seconds = duration_seconds(value)
    if seconds is None:
        raise refuse("E_TYPE", "is not a duration; write seconds as a number, or 90s, 15m, 1h30m")
    return seconds


def _gigabytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    size = size_gigabytes(value)
    if size is None:
        raise refuse("E_TYPE", "is not a size; write gigabytes as a number, or 128GB, 512MiB")
    return size


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    size = size_bytes(value)
    if size is None:
        raise refuse("E_TYPE", "is not a size; write bytes as a whole number, or 10MB, 1GiB")
    return size


_DURATION_FORM = {
    "type": "string",
    "pattern": (
        r"^([0-9]{1,2}(\.[0-9]{1,3})?d)?([0-9]{1,3}h)?([0-9]{1,4}(m|min))?"
        r"([0-9]{1,5}(\.[0-9]{1,3})?s)?([0-9]{1,6}ms)?$"
    ),
    "minLength": 2,
    "examples": ["90s", "1h30m"],
}
_SIZE_FORM = {
    "type": "string",
    "pattern": r"^[0-9]{1,15}(\.[0-9]{1,9})? ?([kKmMgGtTpP]?[bB]|[kKmMgGtT]i[bB]?)$",
    "examples": ["128GB", "512MiB"],
}
_YEAR = 366 * 86400


def _pattern(regex: re.Pattern[str]) -> Any:
    return Field(json_schema_extra={"pattern": f"^(?:{regex.pattern})$"})


def _scheme(schemes: tuple[str, ...]) -> Any:
    return Field(json_schema_extra={"format": "uri", "pattern": f"^({'|'.join(schemes)})://"})


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Title = Annotated[str, Field(min_length=1, max_length=limits.TITLE_CHARS), AfterValidator(_title)]
# `format` is a note for people and tools: JSON Schema leaves unknown ones unchecked.
Path = Annotated[
    str, Field(min_length=1, json_schema_extra={"format": "path"}), AfterValidator(check_path)
]
PathOrUri = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"format": "path-or-uri"}),
    AfterValidator(_path_or_uri),
]
Folder = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"format": "path-or-uri"}),
    AfterValidator(_folder),
]
InputUri = Annotated[str, AfterValidator(_uri(READABLE)), _scheme(READABLE)]
OutputUri = Annotated[str, AfterValidator(_uri(WRITABLE)), _scheme(WRITABLE)]
HttpsUri = Annotated[str, AfterValidator(_uri(("https",))), _scheme(("https",))]
Image = Annotated[str, AfterValidator(_image), _pattern(_IMAGE)]
EnvKey = Annotated[str, AfterValidator(_env_key), _pattern(_ENV_KEY)]
SecretRef = Annotated[str, AfterValidator(_secret_ref), _pattern(_SECRET_REF)]
Sha256 = Annotated[str, AfterValidator(_sha256), _pattern(_SHA256)]
EntryPoint = Annotated[
    str, AfterValidator(_entry_point), Field(json_schema_extra={"format": "entry-point"})
]
Seconds = Annotated[
    float, Field(gt=0, le=_YEAR), BeforeValidator(_duration), AlsoAccepts(_DURATION_FORM)
]
Gigabytes = Annotated[
    float, Field(gt=0, le=1e9), BeforeValidator(_gigabytes), AlsoAccepts(_SIZE_FORM)
]
Bytes = Annotated[
    int, Field(ge=1, le=limits.INT_MAX), BeforeValidator(_bytes), AlsoAccepts(_SIZE_FORM)
]

Items = Strict(strict=False)
"""A tuple that also takes a list, which is what YAML and JSON have; its items stay strict."""

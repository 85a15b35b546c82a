"""The limits of a request body: one place, so that code, schema and documentation agree."""

from __future__ import annotations

BODY_BYTES = 256 * 1024
DEPTH = 32
NODES = 50_000
STRING_BYTES = 16 * 1024
KEY_CHARS = 512
"""A YAML reader gives up on keys beyond 1024 characters; half of that leaves room for quoting."""

INT_MIN = -(2**63)
INT_MAX = 2**63 - 1

NAME_CHARS = 63
TITLE_CHARS = 256
PATH_BYTES = 4096
IMAGE_CHARS = 512
GROWTH = 100
"""A retry that asks for more than a hundredfold is certainly a slip."""

INPUTS = 64
OUTPUTS = 64
TAGS = 64
BACKENDS = 64
RESOURCES = 64
SECRETS = 64
NOTIFICATIONS = 16
COMPENSATIONS = 64
STEPS = 1024

CONSTRAINTS = 64
EXPRESSION_BYTES = 512
COMPREHENSIONS = 1
LABEL_ITEMS = 64

ARGV_ITEMS = 4096
ARGV_BYTES = 64 * 1024
ENV_KEYS = 128
SOURCE_LINES = 20_000

PROBLEMS = 20
READER_PROBLEMS = 100
"""A reader stops here: nobody reads more, and the work per body stays bounded."""

ECHO_CHARS = 80

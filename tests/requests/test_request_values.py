"""Amounts, moments and URIs, one value at a time."""

from __future__ import annotations

import re
import time

import pytest

from temporal_fabric.requests import uris
from temporal_fabric.requests.quantities import (
    AtLeast,
    GpuAsk,
    duration_seconds,
    growth_factor,
    parse_at_least,
    parse_gpu,
    size_bytes,
)
from temporal_fabric.requests.texts import looks_like_credential, show
from temporal_fabric.requests.uris import READABLE, mask_credentials, uri_fault


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128GB", 128 * 10**9),
        ("1.5 TB", 15 * 10**11),
        ("512MiB", 512 * 2**20),
        ("64Gi", 64 * 2**30),
        ("10b", 10),
        ("128", None),
        ("128G", None),
        ("GB", None),
        ("-1GB", None),
        ("1e3GB", None),
        ("1,5GB", None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    """A size has a unit whose meaning is not in doubt."""
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("100ms", 0.1),
        ("5min", 300),
        ("01:30:00", 5400),
        ("1-00:00:00", 86_400),
        ("90", None),
        ("", None),
        ("30m1h", None),
        ("1h 30m", None),
        ("1w", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    """A duration names its units, largest first."""
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("A100:2", GpuAsk("A100", 2, open_ended=False)),
        ("A100", GpuAsk("A100", 1, open_ended=False)),
        ("2", GpuAsk(None, 2, open_ended=False)),
        ("2+", GpuAsk(None, 2, open_ended=True)),
        ("H100-80.GB:4+", GpuAsk("H100-80.GB", 4, open_ended=True)),
        ("A100:", None),
        (":2", None),
        ("", None),
        ("A100:two", None),
        ("A 100:2", None),
    ],
)
def test_gpus(text: str, ask: GpuAsk | None) -> None:
    """A number of GPUs, a model, or both."""
    assert parse_gpu(text) == ask


def test_other_short_forms() -> None:
    """Open-ended amounts and growth factors."""
    assert parse_at_least("16+") == AtLeast(16.0, open_ended=True)
    assert parse_at_least("0.5") == AtLeast(0.5, open_ended=False)
    assert parse_at_least("16-") is None
    assert growth_factor("x1.5") == 1.5
    assert growth_factor("2x") is None


@pytest.mark.parametrize(
    "uri",
    [
        "file:///data/set.csv",
        "file://localhost/data",
        "s3://bucket-1/key/with spaces%20encoded",
        "https://example.org/a?version=3",
        "https://example.org:8443/a",
        "https://93.184.216.34/a",
        "https://[2606:2800:220:1:248:1893:25c8:1946]/a",
        "capsule://default/run-1/model.bin",
    ],
)
def test_uris_that_are_accepted(uri: str) -> None:
    """URIs as people write them."""
    assert uri_fault(uri.replace(" ", "%20"), READABLE) is None


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("data.csv", "E_URI_SCHEME"),
        ("/data.csv", "E_URI_SCHEME"),
        ("http://example.org/", "E_URI_SCHEME"),
        ("javascript://x/%0aalert(1)", "E_URI_SCHEME"),
        ("HTTPS://example.org/", "E_URI_SCHEME"),
        ("file://server/share", "E_URI_HOST"),
        ("file:///", "E_PATH"),
        ("file:///a/../b", "E_PATH"),
        ("file:///a/%2E%2e/b", "E_PATH"),
        ("file:///a/%252e%252e/b", "E_PATH"),
        ("file:///a%00b", "E_PATH"),
        ("file:///a%0ab", "E_PATH"),
        ("file:///a b", "E_PATH"),
        ("file:///a\\b", "E_PATH"),
        ("s3://Bucket/key", "E_URI_HOST"),
        ("s3://bucket", "E_PATH"),
        ("s3://bucket/", "E_PATH"),
        ("s3://key:secret@bucket/a", "E_URI_CRED"),
        ("https://user@example.org/", "E_URI_CRED"),
        ("https://a.org/?X-Amz-Credential=x", "E_URI_CRED"),
        ("https://a.org/?a=1&%74oken=x", "E_URI_CRED"),
        ("https://a.org/?sv=1;sig=x", "E_URI_CRED"),
        ("https://localhost/", "E_URI_HOST"),
        ("https://LOCALHOST./", "E_URI_HOST"),
        ("https://a.localhost/", "E_URI_HOST"),
        ("https://metadata.google.internal/", "E_URI_HOST"),
        ("https://127.0.0.1/", "E_URI_HOST"),
        ("https://127.1/", "E_URI_HOST"),
        ("https://2130706433/", "E_URI_HOST"),
        ("https://0x7f000001/", "E_URI_HOST"),
        ("https://0177.0.0.1/", "E_URI_HOST"),
        ("https://10.0.0.1/", "E_URI_HOST"),
        ("https://169.254.169.254/latest", "E_URI_HOST"),
        ("https://100.64.0.1/", "E_URI_HOST"),
        ("https://0.0.0.0/", "E_URI_HOST"),
        ("https://224.0.0.1/", "E_URI_HOST"),
        ("https://[::1]/", "E_URI_HOST"),
        ("https://[::ffff:127.0.0.1]/", "E_URI_HOST"),
        ("https://[fe80::1%25eth0]/", "E_URI_HOST"),
        ("https://[::1/", "E_URI_HOST"),
        ("https:///path", "E_URI_HOST"),
        ("https://a..b/", "E_URI_HOST"),
        ("https://exa_mple\u3002org/", "E_URI_HOST"),
        ("https://a.org:99999/", "E_URI_HOST"),
        ("https://a.org:x/", "E_URI_HOST"),
        ("capsule://default/run-1", "E_PATH"),
        ("capsule://default/run-1/", "E_PATH"),
        ("capsule://Default/run-1/x", "E_NAME"),
        ("capsule://default/../x", "E_PATH"),
    ],
)
def test_uris_that_are_refused(uri: str, code: str) -> None:
    """Hidden addresses, climbing paths and credentials are found by their spelling."""
    fault = uri_fault(uri, READABLE)

    assert fault is not None
    assert fault.code == code


def test_masking() -> None:
    """User parts and queries are replaced wherever a URI stands in a text."""
    assert mask_credentials("see https://a:b@c/d?e=f now") == "see https://***@c/d?*** now"
    assert show("x" * 100) == "x" * 77 + "..."
    assert show("a\nb\u202e") == "a\\x0ab\\u202e"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DB_PASSWORD", "a", True),
        ("DB_PASSWORD", "", False),
        ("CLIENT_SECRET", "x y", True),
        ("HF_TOKEN", "abcdefgh12345678", True),
        ("EOS_TOKEN", "</s>", False),
        ("MAX_TOKENS", "4096", False),
        ("AWS_ACCESS_KEY_ID", "AKIA" + "ABCDEFGH12345678", True),
        ("ANYTHING", "-----BEGIN RSA PRIVATE KEY-----", True),
        ("MODEL", "sk-learn-gradient-boosting-regressor", False),
        ("PATH", "/usr/bin:/bin", False),
    ],
)
def test_what_is_taken_for_a_credential(name: str, value: str, secret: bool) -> None:  # noqa: FBT001 - a table
    """Neither a name nor a length alone makes a credential."""
    assert looks_like_credential(name, value) is secret


@pytest.mark.parametrize(
    "pump",
    [
        "a",
        "a.",
        "a-",
        "1",
        "1h",
        "%",
        "%2e",
        "/",
        "@",
        ":",
        "a@",
        "[",
        "-",
        "_",
        "\n",
        "ghp_a",
        "eyJ",
    ],
)
def test_patterns_are_linear(pump: str) -> None:
    """No pattern here takes long on 64 KiB of anything."""
    text = (pump * 65_536)[:65_536]

    for check in (size_bytes, duration_seconds, parse_gpu, growth_factor, mask_credentials, show):
        begun = time.process_time()
        check(text)
        assert time.process_time() - begun < 0.05, check
    for found in (
        uri_fault(f"https://{text}", READABLE),
        uri_fault(f"s3://bucket/{text}?{text}", READABLE),
    ):
        assert found is None or found.code.startswith("E_")


def test_only_known_schemes_have_checks() -> None:
    """Every scheme that is accepted somewhere is checked by a rule of its own."""
    assert re.fullmatch("[a-z0-9 ]+", " ".join(READABLE))
    assert set(READABLE) == set(uris._CHECKS)  # pyright: ignore[reportPrivateUsage]

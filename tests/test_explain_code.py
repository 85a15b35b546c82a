"""``explain-code``: every code and reason has its text, and every example its real answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.cli.app import main
from temporal_fabric.glossary import known, look_up
from temporal_fabric.reasons import REASONS
from temporal_fabric.requests import CODES
from temporal_fabric.requests.code_examples import EXAMPLES, RAISED_BY
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from pathlib import Path


def said(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int | str | None, str, str]:
    """Run a command of the command line; return its exit code and what it printed."""
    with pytest.raises(SystemExit) as left:
        main(args, hard_exit=False)
    out, err = capsys.readouterr()
    return (left.value.code, out, err)


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_is_refused_as_it_says(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``validate`` gives the printed answer to the example, under the code that it explains."""
    example = look_up(code).example
    assert example is not None
    file = tmp_path / example.file
    file.write_text(example.text)

    exit_code, _, err = said(capsys, "validate", str(file))

    assert exit_code == 2
    assert err == f"{example.answer}\nnext: temporal-fabric explain-code {code}\n"
    assert "1 problem\n" in example.answer


def test_every_code_and_reason_is_explained() -> None:
    """A code that admission raises has an example, any other says who raises it."""
    assert set(EXAMPLES) == {code for code, row in CODES.items() if row.admission}
    assert set(CODES) - set(EXAMPLES) <= set(RAISED_BY)
    assert set(REASONS) == set(Reason)
    for token in known():
        assert look_up(token).parts, token


def test_a_code_is_explained_in_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The text has example and answer, JSON the same in fields; letters may be small."""
    assert "priority: 11" in said(capsys, "explain-code", "e_range")[1]

    code, out, _ = said(capsys, "explain-code", "OOM", "-o", "json")

    assert code == 0
    assert json.loads(out)["parts"]["Certain"] == REASONS[Reason.OOM].certain


def test_all_codes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a code, every one is listed with its meaning."""
    _, out, _ = said(capsys, "explain-code")

    assert [token for token in known() if token not in out] == []


def test_an_unknown_code_is_a_usage_error_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip names the code that was probably meant."""
    code, _, err = said(capsys, "explain-code", "E_RNAGE")

    assert code == 2
    assert "did you mean E_RANGE?" in err

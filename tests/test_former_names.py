"""Former names of commands, options and settings count as the present ones."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from staf.cli import app
from staf.cli.options import overrides
from staf.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctor", "--help"], "staf doctor is now staf env."),
        (["train", "--set", "steps=1", "--help"], "--set is now --override (-o)."),
        (["evaluate", "--learn=seed=1", "--help"], "--learn is now --method-arg."),
        (["adapt", "--start", "router", "--help"], "--start is now --init-from."),
        (["train", "--track", "wandb", "--help"], "--track is now --report-to."),
        (["train", "--shard-base", "--help"], "--shard-base is now --fsdp."),
        (["reproduce", "table3", "--engine", "ray", "--help"], "--engine is now --launcher."),
        (["data", "list", "--data", "mine", "--help"], "--data is now --data-dir."),
        (["data", "prepare", "hpo", "--skip-bad", "--help"], "--skip-bad is now --skip-invalid."),
        (["data", "show", "hpo", "--kind", "entity_relation", "--help"], "--kind is now --task-type."),
    ],
)
def test_former_names_count_as_the_present_ones_and_say_so(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert message in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "data"], "staf bench is now python benchmarks/NAME.py"),
        (["report", "runs", "--set", "seed=1"], "--set is now --override (-o), and staf report does not take it."),
    ],
)
def test_a_former_name_without_a_present_one_is_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_former_settings_count_as_the_present_ones_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert overrides(["max_tokens=1600", "seed=3"]) == {"max_length": 1600, "seed": 3}
    assert capsys.readouterr().err == "max_tokens is now max_length.\n"


def test_a_folder_of_data_sets_is_not_taken_for_names() -> None:
    with pytest.raises(ConfigError, match=r"Give the folder of your data sets as --data-dir \."):
        CliRunner().invoke(app, ["train", "--data", ".", "--out", "none"], catch_exceptions=False)

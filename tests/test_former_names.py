"""Former names of commands and options answer with the present ones."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from staf.cli import app
from staf.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctor"], "staf doctor is now staf env."),
        (["bench", "data"], "staf bench is now python benchmarks/NAME.py"),
        (["train", "--set", "steps=1"], "--set is now --override (-o)."),
        (["evaluate", "--learn=seed=1"], "--learn is now --method-arg."),
        (["adapt", "--start", "router"], "--start is now --init-from."),
        (["train", "--track", "wandb"], "--track is now --report-to."),
        (["train", "--shard-base"], "--shard-base is now --fsdp."),
        (["reproduce", "table3", "--engine", "ray"], "--engine is now --launcher."),
        (["data", "list", "--data", "mine"], "--data is now --data-dir."),
        (["data", "prepare", "hpo", "--skip-bad"], "--skip-bad is now --skip-invalid."),
        (["data", "show", "hpo", "--kind", "entity_relation"], "--kind is now --task-type."),
    ],
)
def test_former_names_answer_with_the_present_ones(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_folder_of_data_sets_is_not_taken_for_names() -> None:
    with pytest.raises(ConfigError, match=r"Give the folder of your data sets as --data-dir \."):
        CliRunner().invoke(app, ["train", "--data", ".", "--out", "none"], catch_exceptions=False)

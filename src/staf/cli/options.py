"""Options that several commands share, name=value overrides, and the replacements of former names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

OLD_COMMANDS = {"doctor": "staf env", "bench": "python benchmarks/NAME.py, in the repository"}
OLD_OPTIONS = {
    "--set": "--override (-o)",
    "--learn": "--method-arg",
    "--start": "--init-from",
    "--track": "--report-to",
    "--shard-base": "--fsdp",
    "--engine": "--launcher",
    "--data": "--data-dir",
    "--skip-bad": "--skip-invalid",
    "--kind": "--task-type",
}

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of your own data sets; default: STAF_DATA, else packages.")
]
Splits = Annotated[
    str, typer.Option("--splits", help="How data sets are split: staf-llm (sizes of Table 2) or sa-mdkif (8:2).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Base = Annotated[
    str | None, typer.Option("--base", help="Hub id, folder or GGUF file of the base; default SmolLM2-135M-Instruct.")
]
Experts = Annotated[Path, typer.Option("--experts", help="Folder of trained experts.")]
OptionalExperts = Annotated[Path | None, typer.Option("--experts", help="Folder of trained experts.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that results are written to.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="bfloat16, float16, float32, or nf4 (4-bit base). Default: bfloat16 where native, else float32."
    ),
]
Override = Annotated[
    list[str] | None, typer.Option("--override", "-o", help="A setting as name=value; repeatable. See --list-options.")
]
SETTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {"--override": ("staf.experts.recipe:ExpertRecipe", "staf.compute:ComputeOptions")},
    "adapt": {"--override": ("staf.routing.recipe:RouterRecipe",)},
    "evaluate": {
        "--override": ("staf.evaluate.settings:EvaluationSettings",),
        "--method-arg": ("staf.baselines.settings:BaselineSettings", "staf.baselines.settings:ClassifierSettings"),
    },
    "predict": {"--override": ("staf.evaluate.settings:EvaluationSettings",)},
    "reproduce": {"--override": ("staf.experiments.profile:Profile",)},
}
"""For each command, the classes of settings that its options change."""


def _list_options(context: typer.Context, wanted: bool) -> None:
    if wanted:
        from staf.cli.printing import print_settings

        for option, classes in SETTINGS[str(context.info_name)].items():
            print_settings(option, classes)
        raise typer.Exit


ListOptions = Annotated[
    bool,
    typer.Option("--list-options", callback=_list_options, is_eager=True, help="Print all settings with defaults, and exit."),
]
TaskName = Annotated[str, typer.Option("--task", help="Name of a task, as in staf tasks list, or a task's YAML file.")]
TaskArgument = Annotated[str, typer.Argument(help="Name of a task, as in staf tasks list, or a task's YAML file.")]


class Command(TyperCommand):
    """A command that answers a former option name with the present one, exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; fails on a former option name."""
        known = {name for parameter in self.params for name in parameter.opts}
        for argument in args:
            name = argument.partition("=")[0]
            if name in OLD_OPTIONS and name not in known:
                here = "" if OLD_OPTIONS[name].split()[0] in known else f", and staf {ctx.info_name} does not take it"
                ctx.fail(f"{name} is now {OLD_OPTIONS[name]}{here}.")
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands that answers a former command name with the present one, exit code 2."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; fails on a former name."""
        if cmd_name in OLD_COMMANDS and cmd_name not in self.commands:
            ctx.fail(f"staf {cmd_name} is now {OLD_COMMANDS[cmd_name]}.")
        return super().get_command(ctx, cmd_name)


class App(typer.Typer):
    """A group of commands with plain help and one-line errors."""

    def __init__(self, help: str, name: str | None = None) -> None:
        super().__init__(
            name=name, cls=Group, help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
            rich_markup_mode=None,
        )  # fmt: skip

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Register a function as a command."""
        return super().command(name, **{"cls": Command, **settings})


def open_store(data_dir: Path | None, splits: str, fetch: bool = True) -> Any:
    """The data sets of a command: those of the folder given, else of STAF_DATA, else of packages."""
    from staf.data.fetch import data_folder
    from staf.data.store import DataStore

    return DataStore(data_folder(data_dir), splits, fetch)


def overrides(pairs: list[str] | None, option: str = "--override") -> dict[str, Any]:
    """Values by setting from name=value pairs; numbers, true, false and null as in YAML.

    Raises:
        ConfigError: a pair has no equals sign or its value is not YAML.
    """
    import yaml

    from staf.errors import ConfigError

    values = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        try:
            values[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"{option} {pair}: the value is not valid YAML. Quote it, as in {option} 'name=value'."
            ) from error
        if not equals:
            raise ConfigError(f"{option} {pair}: name=value was expected, such as {option} seed=1.")
    return values

"""Commands from functions and their texts (texts.yaml), former names, and name=value overrides."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from pydoc import locate
from typing import Annotated, Any

import typer
import yaml
from typer.core import TyperCommand, TyperGroup

from staf.config import former_names
from staf.errors import ConfigError

TEXTS = yaml.safe_load((resources.files("staf.cli") / "texts.yaml").read_text(encoding="utf-8"))
FORMER: dict[str, str] = TEXTS["former"]
RUNS, SPLITS = Path("runs"), "staf-llm"
"""Defaults of --runs and --splits."""


class Command(TyperCommand):
    """A command that takes a former option for the present one and says so, and ends with 130 where it is interrupted."""

    def invoke(self, ctx: Any) -> Any:
        """Run the function."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("Interrupted. Re-run the command to resume.", file=sys.stderr)
            ctx.exit(130)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; fails on a former option whose present one the command does not take."""
        known = {name for parameter in self.params for name in parameter.opts}
        for position, argument in enumerate(args):
            name, equals, value = argument.partition("=")
            if name.startswith("--") and name in FORMER and name not in known:
                if (now := FORMER[name].split()[0]) not in known:
                    ctx.fail(f"{name} is now {FORMER[name]}, and staf {ctx.info_name} does not take it.")
                print(f"{name} is now {FORMER[name]}.", file=sys.stderr)
                args[position] = now + equals + value
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands that takes a former name of one of them for the present one and says so."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; fails on a former name that is no command any more."""
        if cmd_name in FORMER and cmd_name not in self.commands:
            if (now := FORMER[cmd_name].removeprefix("staf ")) not in self.commands:
                ctx.fail(f"staf {cmd_name} is now {FORMER[cmd_name]}.")
            print(f"staf {cmd_name} is now {FORMER[cmd_name]}.", file=sys.stderr)
            cmd_name = now
        return super().get_command(ctx, cmd_name)


class App(typer.Typer):
    """A group of commands, made from functions, with plain help and one-line errors."""

    def __init__(self, name: str, *functions: Callable[..., None]) -> None:
        texts = TEXTS["groups"][name]
        super().__init__(
            name=name, cls=Group, help=f"{texts['help']}\n\nTry:  {texts['example']}", no_args_is_help=True,
            add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
        )  # fmt: skip
        for function in functions:
            self.add(function)

    def add(self, function: Callable[..., None]) -> None:
        """Make a function a command: its parameters before `*` are arguments, those after it options.

        The name of the command is that of the function up to its first underscore.
        """
        name = function.__name__.partition("_")[0]
        texts = TEXTS["commands"][f"{self.info.name} {name}".removeprefix("staf ")]
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            given = texts.get(parameter.name) or TEXTS["shared"][parameter.name]
            text = dict(given) if isinstance(given, dict) else {"help": given}
            names = text.pop("names", [f"--{parameter.name.replace('_', '-')}"])  # of a flag: there is no --no-flag
            if parameter.name == "list_options":
                text |= {"callback": _list_options, "is_eager": True}
            is_option = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            info = typer.Option(*names, **text) if is_option else typer.Argument(**text)
            function.__annotations__[parameter.name] = Annotated[parameter.annotation, info]
        self.command(name, cls=Command, help=f"{inspect.getdoc(function)}\n\nTry:  {texts['example']}")(function)


def _list_options(context: typer.Context, wanted: bool) -> None:
    """Print the settings that the options of a command change, one a line: name, default and documentation."""
    if not wanted:
        return
    for option, classes in TEXTS["settings"][context.info_name].items():
        for path in classes:
            kind: Any = locate(path)
            print(f"{option} name=value, of {kind.__name__}:")
            for field, info in kind.model_fields.items():
                default = "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)}"
                print(f"  {field} ({default}): {info.description or ''}".rstrip(": "))
            print()
    raise typer.Exit


def open_store(data_dir: Path | None, splits: str, fetch: bool = True) -> Any:
    """The data sets of a command: those of the folder given, else of STAF_DATA, else of packages."""
    from staf.data.fetch import data_folder
    from staf.data.store import DataStore

    return DataStore(data_folder(data_dir), splits, fetch)


def overrides(pairs: list[str] | None, option: str = "--override") -> dict[str, Any]:
    """Values by setting from name=value pairs; numbers, true, false and null as in YAML; a former name counts as the present.

    Raises:
        ConfigError: a pair has no equals sign or its value is not YAML.
    """
    values, renamed = {}, {name: now for names in former_names().values() for name, now in names.items()}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{option} {pair}: name=value was expected, such as {option} seed=1.")
        if isinstance(now := renamed.get(name := name.strip()), str) and now.isidentifier():
            print(f"{name} is now {now}.", file=sys.stderr)
            name = now
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"{option} {pair}: the value is not valid YAML. Quote it, as in {option} 'name=value'."
            ) from error
    return values

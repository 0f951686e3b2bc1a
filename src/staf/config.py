"""Base of all settings: frozen, validated, every mistake reported at once.

Each class of settings lives next to its users. A recipe (recipes/*.yaml) says what differs from the defaults.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from staf.errors import ConfigError, MissingData


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def digest(self) -> str:
        """Ten hexadecimal digits that name these settings."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:10]


AnySettings = TypeVar("AnySettings", bound=Settings)


def parse(kind: type[AnySettings], values: dict[str, Any], where: str) -> AnySettings:
    """Settings from plain values; raises ConfigError that names every unknown key, wrong value and contradiction."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(_nested(kind), dict(item)) for item in error.errors()]
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(f"settings in {where}: {count}.\n  " + "\n  ".join(problems)) from error


def _nested(kind: type[Settings]) -> list[type[Settings]]:
    """A class of settings and those of its fields, at any depth."""
    annotations = [field.annotation for field in kind.model_fields.values()]
    inner = [a for a in annotations if isinstance(a, type) and issubclass(a, Settings)]
    return [kind, *(found for one in inner for found in _nested(one))]


@cache
def former_names() -> dict[str, dict[str, Any]]:
    """By class of settings, for each former name the present one; for a setting itself, its former values (renamed.yaml)."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(resources.files("staf").joinpath("renamed.yaml").read_text("utf-8"))
    return found


def _sentence(kinds: list[type[Settings]], item: dict[str, Any]) -> str:
    """One problem of pydantic as a sentence, with the present name for a former one."""
    name, last = ".".join(str(part) for part in item["loc"]), str((item["loc"] or ("",))[-1])
    renamed = next((found[last] for one in kinds if last in (found := former_names().get(one.__name__, {}))), None)
    if item["type"] == "extra_forbidden":
        if renamed:
            return f"{name} is now {renamed}."
        near = difflib.get_close_matches(last, [field for one in kinds for field in one.model_fields], n=1)
        known = f"; did you mean '{near[0]}'?" if near else f". The settings are {', '.join(kinds[0].model_fields)}."
        return f"{name} is not a setting{known}"
    if item["type"] == "literal_error" and isinstance(renamed, dict) and str(item["input"]) in renamed:
        return f"{name} = {item['input']} is now {name} = {renamed[str(item['input'])]}."
    message = item["msg"].removeprefix("Value error, ")
    return f"{name} = {item['input']!r}: {message}." if name else f"{message}."


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with staf; raises MissingData where it is neither."""
    folder = Path(str(resources.files("staf") / "recipes"))
    packaged = {recipe.stem: recipe for recipe in sorted(folder.glob("*.yaml"))}
    if Path(name).is_file():
        return Path(name)
    if name in packaged:
        return packaged[name]
    raise MissingData(
        f"no recipe {name}: it is no file, and the recipes that come with staf are {', '.join(packaged)}. Check the path."
    )


def load_values(path: Path | None, what: str = "recipe", otherwise: str = "leave it out for the defaults") -> dict[str, Any]:
    """The plain values of a YAML file, with those of the file that its key `include` names; {} where there is no path.

    Raises:
        MissingData: there is no such file. ConfigError: it is not a YAML mapping, or has a tag that would run code.
    """
    if path is None:
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingData(f"no {what} {path}. Check the path, or {otherwise}.") from error
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path}, line {line}: {error.problem}. It is refused: no code runs from a YAML file.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: a mapping of names to values was expected.")
    if isinstance(included := values.pop("include", None), str):
        return load_values(path.parent / included, what, otherwise) | values
    return values

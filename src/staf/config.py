"""Base of all settings: frozen, validated, every mistake reported at once.

Each class of settings lives next to its users. A recipe (recipes/*.yaml) says what differs from the defaults.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from staf.errors import ConfigError, MissingData


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused.

    Attributes:
        RENAMED: for each former name of a setting, where it is now; `parse` answers the former name with it.
        RENAMED_VALUES: for a setting, the value of today for each former one; `parse` answers likewise.
    """

    RENAMED: ClassVar[dict[str, str]] = {}
    RENAMED_VALUES: ClassVar[dict[str, dict[str, str]]] = {}
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def digest(self) -> str:
        """Ten hexadecimal digits that name these settings."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:10]


AnySettings = TypeVar("AnySettings", bound=BaseModel)


def parse(kind: type[AnySettings], values: dict[str, Any], where: str) -> AnySettings:
    """Settings from plain values.

    Raises:
        ConfigError: naming every unknown key, wrong value and contradiction at once.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(kind, dict(item)) for item in error.errors()]
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(f"settings in {where}: {count}.\n  " + "\n  ".join(problems)) from error


def _sentence(kind: type[BaseModel], item: dict[str, Any]) -> str:
    import difflib

    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        renamed = _renamed(kind)
        if (last := str(item["loc"][-1])) in renamed:
            return f"{name} is now {renamed[last]}."
        near = difflib.get_close_matches(name.rpartition(".")[2], _all_fields(kind), n=1)
        return f"{name} is not a setting" + (f"; did you mean '{near[0]}'?" if near else ".")
    former = {setting: values for one in _nested(kind) for setting, values in getattr(one, "RENAMED_VALUES", {}).items()}
    if item["type"] == "literal_error" and (now := former.get(str(item["loc"][-1]), {}).get(str(item["input"]))):
        return f"{name} = {item['input']} is now {name} = {now}."
    message = item["msg"].removeprefix("Value error, ")
    return f"{name} = {item['input']!r}: {message}." if name else f"{message}."


def _nested(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """A class of settings and those of its fields, at any depth."""
    annotations = [field.annotation for field in kind.model_fields.values()]
    inner = [a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel)]
    return [kind, *(found for one in inner for found in _nested(one))]


def _all_fields(kind: type[BaseModel]) -> list[str]:
    return [name for one in _nested(kind) for name in one.model_fields]


def _renamed(kind: type[BaseModel]) -> dict[str, str]:
    return {old: new for one in _nested(kind) for old, new in getattr(one, "RENAMED", {}).items()}


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with staf, such as paper.

    Raises:
        MissingData: it is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    folder = Path(str(resources.files("staf") / "recipes"))
    packaged = folder / f"{name}.yaml"
    if path.name == name and packaged.is_file():
        return packaged
    known = ", ".join(sorted(recipe.stem for recipe in folder.glob("*.yaml")))
    raise MissingData(f"no recipe {name}: it is no file, and the recipes that come with staf are {known}. Check the path.")


def load_recipe(kind: type[AnySettings], path: Path) -> AnySettings:
    """Settings from a YAML file.

    Raises:
        MissingData: there is no such file. ConfigError: it is not YAML, or its settings are wrong.
    """
    return parse(kind, load_values(path), str(path))


def load_values(path: Path | None) -> dict[str, Any]:
    """The plain values of a YAML file; none where there is no path.

    Raises:
        MissingData: there is no such file. ConfigError: it is not a YAML mapping.
    """
    if path is None:
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingData(f"no recipe {path}. Check the path, or leave it out for the defaults.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: a mapping of names to values was expected.")
    return values

"""What users are told stays true of the code."""

import dataclasses
import re
import tomllib
from pathlib import Path

from regard.cli.main import VERBS
from regard.data.formats import FORMATS
from regard.models import MODELS
from regard.models.rotary import RotaryConfig
from regard.training.recipe import DataConfig, TrainConfig, load_recipe, read_recipe, shipped_recipes

ROOT = Path(__file__).parent.parent
RECIPES, _, _ = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").partition("## What a run holds")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def documented() -> dict[str, list[str]]:
    """Each setting in the tables of docs/recipes.md, and the defaults told beside it: one for each model with it."""
    found: dict[str, list[str]] = {}
    for names, defaults in re.findall(r"^\| (`.*?) \|(.*?)\|", RECIPES, re.MULTILINE):
        settings = re.findall(r"`(\w+)`", names)
        values = [value.strip(' `"') for value in defaults.split(",")]
        for setting, value in zip(settings, values if len(values) > 1 else values * len(settings), strict=True):
            found.setdefault(setting, []).append(value)
    return found


def test_every_setting_of_a_recipe_is_documented_with_its_default() -> None:
    told = documented()
    for config in (DataConfig, TrainConfig, RotaryConfig, *(family.config for family in MODELS.values())):
        for field in dataclasses.fields(config):
            assert field.name in told, f"docs/recipes.md does not tell {field.name}"
            if dataclasses.is_dataclass(field.default):
                continue
            default = field.default
            if isinstance(default, float):
                same = default in map(float, told[field.name])
            else:
                same = {"True": "true", "False": "false", "None": "", "()": ""}.get(str(default), str(default)) in told[
                    field.name
                ]
            assert same, f"docs/recipes.md tells {field.name} = {told[field.name]}, the code {default}"


def test_the_readme_tells_every_verb() -> None:
    for verb in VERBS:
        assert f"`regard {verb}" in README, f"README.md does not tell regard {verb}"


def test_the_readme_names_only_recipes_that_are_shipped() -> None:
    named = set(re.findall(r"\b(?:numbers|bible)-(?:rnn|bahdanau|luong|transformer)\b", README))
    assert named
    assert named <= set(shipped_recipes())


def test_every_format_is_documented_and_every_spelling_of_data_there_is_one() -> None:
    guide = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for suffix in (*FORMATS, "gzip", "xz", "bz2", "zstd", "zip"):
        assert suffix in guide, f"docs/data.md does not tell {suffix}"
    (examples,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    spelt = [tomllib.loads(line)["train"] for line in examples.splitlines()]
    assert len(spelt) > 5
    for data in spelt:
        recipe = load_recipe("bible-rnn", {"data.train": data})
        tables = tomllib.loads(recipe.to_toml())
        assert read_recipe(tables, where="again") == recipe
        assert recipe.data.train == data

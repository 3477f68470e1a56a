"""Settings are checked by name, type and bounds, and come back from TOML as they went."""

import string
import tomllib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.config import from_dict, parse_value, read_toml, setting, suggest, to_toml
from regard.errors import RegardError

WHERE = "recipes/x.toml: [train]"


@dataclass(frozen=True)
class Settings:
    """One setting of every kind."""

    steps: int
    learning_rate: float = setting(0.001, above=0)
    dropout: float = setting(0.1, least=0, below=1)
    seed: int = setting(1, least=0, most=9)
    tied: bool = setting(True)
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))
    norm: str | None = setting(None, choices=("pre", "post"))
    patience: int | None = setting(None, least=1)
    files: str | list | None = setting(None)

    def __post_init__(self):
        if self.steps == 13:
            raise RegardError("needs a number of steps that brings no bad luck")


def refusal(**values):
    with pytest.raises(RegardError) as refused:
        from_dict(Settings, {"steps": 1} | values, where=WHERE)
    return str(refused.value)


def test_settings_left_out_keep_their_defaults():
    assert from_dict(Settings, {"steps": 7}, where=WHERE) == Settings(steps=7)


def test_a_misspelt_setting_is_refused_with_its_place_and_the_right_name():
    assert refusal(learning_rat=0.1) == f"{WHERE} has no setting 'learning_rat'; did you mean 'learning_rate'?"


def test_a_setting_that_resembles_none_is_answered_with_all_there_are():
    message = refusal(zzzz=1)
    assert message.startswith(f"{WHERE} has no setting 'zzzz'; choose from ")
    assert all(name in message for name in Settings.__dataclass_fields__)


def test_suggest_names_the_nearest_or_else_everything():
    assert suggest("transfomer", ["rnn", "transformer"]) == "; did you mean 'transformer'?"
    assert suggest("zzz", ["rnn", "transformer"]) == "; choose from rnn, transformer"


def test_a_setting_without_default_must_be_given():
    with pytest.raises(RegardError, match=r"\[train\] lacks the setting 'steps'"):
        from_dict(Settings, {}, where=WHERE)


@pytest.mark.parametrize("values", [[], "steps", 3, None])
def test_settings_must_be_a_table(values):
    with pytest.raises(RegardError, match="must be a table of settings"):
        from_dict(Settings, values, where=WHERE)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("steps", True, "int"),
        ("steps", "10", "int"),
        ("steps", 10.0, "int"),
        ("steps", None, "int"),
        ("steps", [1], "int"),
        ("learning_rate", True, "float"),
        ("learning_rate", "0.1", "float"),
        ("tied", 1, "bool"),
        ("tied", "true", "bool"),
        ("device", 1, "str"),
        ("patience", False, "int"),
        ("patience", "1", "int"),
        ("files", 3, "str or list"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(name, value, kind):
    assert refusal(**{name: value}) == f"{WHERE} {name} must be of type {kind}, not {value!r}"


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)],
    ids=lambda value: f"{value:.0}" if isinstance(value, float) else "whole",
)
def test_numbers_that_are_not_finite_are_refused(value):
    message = refusal(learning_rate=value)
    assert message.startswith(f"{WHERE} learning_rate must be a finite number")


@pytest.mark.parametrize(
    ("name", "inside", "outside", "bound"),
    [
        ("learning_rate", 1e-300, 0.0, "above 0"),
        ("dropout", 0.0, -1e-9, "at least 0"),
        ("dropout", 1 - 1e-9, 1.0, "below 1"),
        ("seed", 0, -1, "at least 0"),
        ("seed", 9, 10, "at most 9"),
        ("patience", 1, 0, "at least 1"),
    ],
)
def test_bounds_hold_up_to_the_very_number(name, inside, outside, bound):
    assert getattr(from_dict(Settings, {"steps": 1, name: inside}, where=WHERE), name) == inside
    assert refusal(**{name: outside}) == f"{WHERE} {name} must be {bound}, not {outside}"


@pytest.mark.parametrize(("name", "value"), [("device", "gpu"), ("norm", "none"), ("device", "")])
def test_a_value_outside_the_choices_is_refused_with_all_of_them(name, value):
    choices = Settings.__dataclass_fields__[name].metadata["choices"]
    assert refusal(**{name: value}) == f"{WHERE} {name} must be one of {', '.join(choices)}, not {value!r}"


def test_settings_that_may_be_none_take_none():
    taken = from_dict(Settings, {"steps": 1, "norm": None, "patience": None, "files": None}, where=WHERE)
    assert (taken.norm, taken.patience, taken.files) == (None, None, None)


def test_a_whole_number_serves_as_a_float():
    rate = from_dict(Settings, {"steps": 1, "learning_rate": 2}, where=WHERE).learning_rate
    assert (rate, type(rate)) == (2.0, float)


def test_a_refusal_across_settings_is_told_with_its_place():
    assert refusal(steps=13) == f"{WHERE} needs a number of steps that brings no bad luck"


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# quotes, backslashes, controls and line ends of every kind, more often than they would come by chance
TEXTS = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("\"'\\\x00\x1f\x7f\x85\n\r\t\u2028#=[]\U0010ffff"))
)
# those that a counter holds
WHOLE = st.integers(1 - 2**63, 2**63 - 1)
ITEMS = st.one_of(TEXTS, st.integers(), FLOATS, st.booleans())


@st.composite
def all_settings(draw):
    return Settings(
        steps=draw(WHOLE.filter(lambda steps: steps != 13)),
        learning_rate=draw(FLOATS.filter(lambda rate: rate > 0)),
        dropout=draw(st.floats(0, 1, exclude_max=True)),
        seed=draw(st.integers(0, 9)),
        tied=draw(st.booleans()),
        device=draw(st.sampled_from(["auto", "cpu", "cuda"])),
        norm=draw(st.sampled_from([None, "pre", "post"])),
        patience=draw(st.none() | st.integers(1, 2**63 - 1)),
        files=draw(st.none() | TEXTS | st.lists(ITEMS)),
    )


@given(TEXTS, all_settings())
def test_settings_come_back_from_toml_as_they_went(name, section):
    tables = tomllib.loads(to_toml({"name": name, "train": section}))
    assert tables["name"] == name
    assert from_dict(Settings, tables["train"], where=WHERE) == section


def test_every_character_of_a_byte_comes_back_from_toml():
    name = "".join(map(chr, range(256)))
    assert tomllib.loads(to_toml({"name": name})) == {"name": name}


@given(ITEMS)
def test_a_command_line_value_written_as_toml_is_that_value(value):
    section = to_toml({"value": value}).removeprefix("value = ").removesuffix("\n")
    parsed = parse_value(section)
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.text(string.ascii_letters + " /.-é中", min_size=1).filter(lambda text: text.strip() not in {"true", "false"}))
def test_a_command_line_value_that_is_no_toml_is_its_own_text(text):
    letters = "x" + text
    assert parse_value(letters) == letters


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RegardError, match=r"none\.toml: there is no such file"):
        read_toml(tmp_path / "none.toml")


def test_a_folder_in_place_of_a_file_is_told(tmp_path):
    with pytest.raises(RegardError, match="cannot be read"):
        read_toml(tmp_path)


def test_a_file_that_is_not_utf8_is_told_with_the_byte(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b'name = "caf\xe9"')
    with pytest.raises(RegardError, match=r"x\.toml: not UTF-8 at byte 11"):
        read_toml(path)


def test_a_file_that_is_not_toml_is_told_with_the_line(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("[train]\nsteps = = 3\n")
    with pytest.raises(RegardError, match=r"x\.toml: not valid TOML: .*line 2"):
        read_toml(path)


def test_a_file_of_toml_is_its_tables(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('name = "é"\n[train]\nsteps = 3\n', encoding="utf-8")
    assert read_toml(path) == {"name": "é", "train": {"steps": 3}}


def test_a_value_of_several_lines_is_text_and_never_a_second_setting():
    assert parse_value("1\nb = 2") == "1\nb = 2"

"""Recipes come back from TOML as they went, and what cannot be trained is told with its place."""

import re
import tomllib
from dataclasses import asdict, replace

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from regard.data.corpora import CORPORA
from regard.errors import RegardError
from regard.models import build, check_memory
from regard.training.recipe import BUDGETS, load_recipe, read_recipe, shipped_recipes

# the one for text of a user's own begins from a model
SHIPPED = [name for name in shipped_recipes() if name != "fine-tune"]
TABLES = {
    "data": {"corpus": "numbers-en-fr"},
    "model": {"type": "transformer", "model_dim": 16, "num_heads": 2, "max_length": 32},
    "train": {"steps": 5, "batch_tokens": 64},
}


def changed(section, **settings):
    return TABLES | {section: TABLES.get(section, {}) | settings}


def test_recipes_are_shipped_for_the_three_rungs_and_where_links_are_measured_for_those_with_attention():
    rungs = [f"{corpus}-{model}" for corpus in ("numbers", "bible") for model in ("rnn", "bahdanau", "transformer")]
    others = ["greek-bahdanau", "greek-guided", "greek-luong", "greek-transformer", "gpt-austen", "gpt-bible"]
    assert shipped_recipes() == sorted([*rungs, *others, "fine-tune"])


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_names_a_corpus_that_there_is_and_a_model_that_can_be_built(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.data.corpus in CORPORA
    assert sum(parameter.numel() for parameter in build(recipe.model, recipe.data.vocab_size).parameters()) > 10_000


@pytest.mark.parametrize("corpus", ["numbers", "bible"])
def test_the_rungs_are_trained_alike_so_that_only_the_model_makes_the_difference(corpus):
    recipes = [load_recipe(f"{corpus}-{model}") for model in ("rnn", "bahdanau", "transformer")]
    assert len({recipe.data for recipe in recipes}) == 1
    same = ("steps", "epochs", "minutes", "batch_tokens", "threads", "label_smoothing", "seed")
    assert len({tuple(getattr(recipe.train, name) for name in same) for recipe in recipes}) == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_comes_back_from_toml_as_it_went(name):
    recipe = load_recipe(name)
    assert read_recipe(tomllib.loads(recipe.to_toml()), where="again") == recipe


# standard input is no part of a list
FILES = st.text(min_size=1).filter(lambda text: text != "-" and "\0" not in text)


@given(
    name=st.text(min_size=1),
    train=st.just("-") | FILES | st.lists(FILES, min_size=1, max_size=2),
    learning_rate=st.floats(1e-12, 1e3),
    minutes=st.floats(1e-6, 1e6),
)
def test_any_text_and_number_comes_back_from_toml(name, train, learning_rate, minutes):
    tables = {
        "name": name,
        "data": {"train": train},
        "model": {"type": "rnn", "max_length": 32},
        "train": {"minutes": minutes, "learning_rate": learning_rate},
    }
    recipe = read_recipe(tables, where="test")
    assert recipe.name == name
    assert recipe.data.train == train
    assert read_recipe(tomllib.loads(recipe.to_toml()), where="again") == recipe


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (changed("train", learning_rat=1), "[train] has no setting 'learning_rat'; did you mean 'learning_rate'?"),
        (changed("data", copus="x"), "here: [data] has no setting 'copus'; did you mean 'corpus'?"),
        (changed("model", num_layer=1), "here: [model] has no setting 'num_layer'; did you mean 'num_layers'?"),
        (changed("trian", steps=1), "here has no section [trian]; did you mean 'train'?"),
        (TABLES | {"train": 5}, "here: [train] must be a table of settings, not 5"),
        (changed("train", learning_rate="fast"), "here: [train] learning_rate must be of type float, not 'fast'"),
        (changed("train", steps=True), "here: [train] steps must be of type int, not True"),
        (changed("train", learning_rate=float("nan")), "here: [train] learning_rate must be a finite number, not nan"),
        (changed("train", clip=float("inf")), "here: [train] clip must be a finite number, not inf"),
        (changed("train", batch_tokens=0), "here: [train] batch_tokens must be at least 1, not 0"),
        (changed("train", batch_tokens=31), "is 31, which cannot hold one sentence of model.max_length 32"),
        (changed("train", report=[[1]]), "here: [train] report has no [1]; choose from tensorboard, wandb"),
        (changed("train", accumulate=0), "here: [train] accumulate must be at least 1, not 0"),
        (changed("train", decay=1.0), "here: [train] decay must be below 1, not 1.0"),
        (changed("train", schedule="linear"), "here: [train] schedule must be one of inverse_sqrt, cosine, wsd"),
        (changed("train", steps=0), "here: [train] steps must be at least 1, not 0"),
        (changed("train", minutes=1), "[train] needs one budget, steps, epochs or minutes, and has steps and minutes"),
        (TABLES | {"train": {}}, "here: [train] needs one budget, steps, epochs or minutes, and has none"),
        (
            TABLES | {"train": {"minutes": 1, "schedule": "cosine", "warmup_steps": 0}},
            "[train] schedule 'cosine' by minutes measures its speed in the warm-up: set warmup_steps to 1 or more",
        ),
        (changed("model", num_heads=3), "here: [model] model_dim 16 cannot be cut into 3 heads of equal size"),
        (changed("model", type="transfomer"), "here: [model] type is 'transfomer'; did you mean 'transformer'?"),
        (TABLES | {"model": {}}, "here: [model] needs a type, rnn, transformer, gpt, or an init"),
        (changed("data", train="my.tsv"), "here: [data] needs either corpus (a name) or train (your own file), one of"),
        (TABLES | {"data": {}}, "here: [data] needs either corpus (a name) or train (your own file), one of them"),
        (TABLES | {"data": {"train": ["-", "s.fr"]}}, "train is ['-', 's.fr'], but standard input (-) is no part"),
        (TABLES | {"data": {"train": "a", "dev": ["-"]}}, "dev is ['-'], but standard input (-) is no part of a list"),
        (TABLES | {"data": {"train": "a", "dev": "-"}}, "here: [data] takes standard input (-) for train alone"),
        (TABLES | {"data": {"train": [1, 2]}}, "here: [data] train must be the path of a file, or a list of one"),
        (TABLES | {"data": {"train": "a", "test": ["a", None]}}, "here: [data] test must be the path of a file, or a"),
        (TABLES | {"data": {"train": []}}, "a file, or a list of one or more corpora, not []"),
        (TABLES | {"data": {"train": [["a", 1]]}}, "must be the path of a file, or a list of one or more"),
        (TABLES | {"data": {"train": {"file": "a"}}}, "has a corpus with the setting 'file'; did you mean 'files'?"),
        (TABLES | {"data": {"train": {"weight": 2}}}, "train: a corpus has either files, or source and target, as in"),
        (TABLES | {"data": {"train": {"files": "a", "source": "b", "target": "c"}}}, "has either files, or source"),
        (TABLES | {"data": {"train": {"files": "a", "source": "b"}}}, "has either files, or source and target"),
        (TABLES | {"data": {"train": "a", "dev": {"files": "a", "weight": 2}}}, "dev: weight is of training data"),
        (TABLES | {"data": {"train": [{"files": "a", "weight": 0}]}}, "weight must be a number above 0 and at most"),
        (TABLES | {"data": {"train": {"source": "-", "target": "c"}}}, "train is '-', but standard input (-) is no"),
        (TABLES | {"data": {"train": "a", "source_key": 0}}, "[data] source_key must be at least 1, not 0"),
        (TABLES | {"data": {"train": "a", "text_key": "b"}}, "text_key is of plain text; a translator has source_key"),
        (changed("data", dev="dev.tsv"), "here: [data] takes dev and test only beside train"),
        (changed("data", dev_links="l"), "here: [data] takes dev_links only beside dev: line n of l is"),
        (TABLES | {"data": {"train": "a", "dev": "b", "test_links": "l"}}, "takes test_links only beside test"),
        (TABLES | {"data": {"train": "a", "dev": "b", "dev_links": "-"}}, "takes standard input (-) for train alone"),
        (TABLES | {"data": {"train": "a", "dev": "b", "dev_links": ["l"]}}, "dev_links must be of type str, not ['l']"),
        (changed("data", tokenizer="word", bpe_dropout=0.1), "takes bpe_dropout only with a bpe tokenizer, not 'word'"),
        (changed("data", tokenizer="a.model", strip_accents=True), "takes strip_accents only where a tokenizer is"),
        (changed("data", normalise="NFD"), "[data] normalise must be one of NFC, NFKC, none, not 'NFD'"),
        (changed("data", tokenizer="letters"), "[data] tokenizer is 'letters', no path"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_with_section_and_setting(tables, message):
    with pytest.raises(RegardError) as told:
        read_recipe(tables, where="here")
    assert message in str(told.value)


def test_the_tables_that_are_refused_above_differ_from_tables_that_are_not():
    assert read_recipe(TABLES, where="here").train.steps == 5


@pytest.mark.parametrize("budget", [{"train.steps": 7}, {"train.epochs": 2}, {"train.minutes": 0.5}])
def test_a_changed_budget_takes_the_place_of_the_recipes_own(budget):
    train = asdict(load_recipe("numbers-rnn", budget).train)
    given_budget = {f"train.{name}": train[name] for name in BUDGETS if train[name] is not None}
    assert given_budget == budget


def test_changed_data_takes_the_place_of_the_recipes_corpus_and_a_corpus_that_of_its_files(tmp_path):
    own = load_recipe("numbers-rnn", {"data.train": "my.tsv", "data.dev": "dev.tsv"}).data
    assert (own.corpus, own.train, own.dev) == (None, "my.tsv", "dev.tsv")
    path = tmp_path / "own.toml"
    path.write_text('[data]\ntrain = "my.tsv"\n[model]\ntype = "rnn"\nmax_length = 32\n[train]\nsteps = 1\n')
    back = load_recipe(path, {"data.corpus": "bible-en-fr"}).data
    assert (back.corpus, back.train) == ("bible-en-fr", None)


def test_a_tuple_of_files_is_as_good_as_a_list():
    given_tuple, given_list = (load_recipe("numbers-rnn", {"data.train": paths}) for paths in (("a", "b"), ["a", "b"]))
    assert given_tuple == given_list


def test_a_change_leaves_every_other_setting():
    before, after = (load_recipe("numbers-rnn", changes) for changes in ({}, {"train.seed": 9}))
    assert after == replace(before, train=replace(before.train, seed=9)) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 1}, "--set minutes: name the section too, as in train.minutes=1"),
        ({"trian.minutes": 1}, "has no section [trian]; did you mean 'train'?"),
        ({"train.minuts": 1}, "numbers-rnn: [train] has no setting 'minuts'; did you mean 'minutes'?"),
        ({"train.minutes": "long"}, "numbers-rnn: [train] minutes must be of type float, not 'long'"),
        ({"model.hidden_dim": 0}, "numbers-rnn: [model] hidden_dim must be at least 1, not 0"),
    ],
)
def test_a_change_is_checked_like_the_recipe(changes, message):
    with pytest.raises(RegardError) as told:
        load_recipe("numbers-rnn", changes)
    assert message in str(told.value)


def test_a_change_within_what_is_no_section_is_refused(tmp_path):
    path = tmp_path / "flat.toml"
    path.write_text("train = 5\n")
    with pytest.raises(RegardError, match=r"--set train\.steps: train is no section"):
        load_recipe(path, {"train.steps": 1})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "numbers-rn",
            "there is no recipe 'numbers-rn', neither a file nor a shipped one; did you mean 'numbers-rnn'?",
        ),
        ("nowhere.toml", "nowhere.toml: there is no such file"),
        ("", "there is no recipe ''"),
    ],
)
def test_a_recipe_that_is_nowhere_is_told(name, message):
    with pytest.raises(RegardError) as told:
        load_recipe(name)
    assert message in str(told.value)


def test_a_recipe_that_is_not_toml_is_told_with_file_and_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nsteps = \n")
    with pytest.raises(RegardError, match=r"mine.toml: not valid TOML: .*line 2"):
        load_recipe(path)


def test_a_file_is_a_recipe_whatever_its_suffix_and_names_the_run(tmp_path):
    path = tmp_path / "mine"
    path.write_text(load_recipe("numbers-rnn").to_toml().replace('name = "numbers-rnn"\n', ""))
    assert load_recipe(path).name == "mine"
    with pytest.raises(RegardError, match=rf"^{path}: \[train\] has no setting 'step'"):
        load_recipe(path, {"train.step": 1})


def test_paths_in_a_recipe_are_relative_to_it_and_those_beside_it_to_the_current_folder(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "both.tsv").touch()
    (here / "only.tsv").touch()
    data = {"train": ["both.tsv", "only.tsv"], "dev": "none.tsv", "test": "/dev/null"}
    lines = [f"{name} = {value!r}" for name, value in data.items()]
    (there / "mine.toml").write_text("\n".join(["[data]", *lines, '[model]\ntype = "rnn"\n[train]\nsteps = 1']))
    monkeypatch.chdir(here)
    found = load_recipe("../there/mine.toml").data
    # what is not beside the recipe may be in the current folder; what is nowhere is missed beside the recipe
    assert found.train == ["../there/both.tsv", "only.tsv"]
    assert (found.dev, found.test) == ("../there/none.tsv", "/dev/null")
    assert load_recipe("../there/mine.toml", {"data.train": "both.tsv"}).data.train == "both.tsv"
    assert load_recipe("../there/mine.toml", {"data.train": "-", "data.dev": None}).data.train == "-"


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("train", "steps", 10**23, "at most 1,000,000,000, not 100000000000000000000000"),
        ("train", "seed", -(10**30), "no number so far below 0"),
        ("train", "clip", 10**400, "must be a finite number, not inf"),
        ("model", "num_layers", 10**6, "at most 1024, not 1000000"),
        ("model", "max_length", 2**200, "at most 67,108,864, not 1606"),
        ("data", "vocab_size", 16**5000, "at most 1,000,000, not one of type int too long to be shown"),
        ("data", "train", "a\0b", "train holds NUL, which is in the name of no file"),
    ],
    # one of the values cannot be shown
    ids=["steps", "seed", "float", "layers", "length", "digits", "path"],
)
def test_values_beyond_all_measure_are_told_in_a_line(section, name, value, message):
    tables = changed(section, **{name: value})
    if name == "train":
        tables["data"].pop("corpus")
    with pytest.raises(RegardError, match=re.escape(message)):
        read_recipe(tables, where="x.toml")


def test_a_change_reaches_into_a_table_of_settings():
    recipe = load_recipe("gpt-austen", {"model.positions": "rotary", "model.rotary.base": 500.0})
    assert recipe.model.rotary.base == 500.0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RegardError, match=r"--set model\.model_dim\.x: model_dim is no table of settings"):
        load_recipe("gpt-austen", {"model.model_dim.x": 1})


def test_the_recipe_for_a_model_that_there_is_asks_for_one_and_for_text():
    with pytest.raises(RegardError, match=r"\[data\] needs either corpus \(a name\) or train"):
        load_recipe("fine-tune", {"model.type": "gpt"})
    with pytest.raises(RegardError, match=r"\[model\] needs a type, .*, or an init, such as --init RUN"):
        load_recipe("fine-tune", {"data.train": "text.txt"})


def test_a_model_that_the_machine_has_no_memory_for_is_told_before_it_is_made(monkeypatch):
    recipe = read_recipe(TABLES, where="x.toml")
    parameters = sum(parameter.numel() for parameter in build(recipe.model, 50).parameters())
    monkeypatch.setattr("regard.models.memory_of_machine", lambda: 16 * parameters - 1)
    with pytest.raises(
        RegardError, match=f"a model of {parameters:,} parameters takes .* GB to train, and this machine"
    ):
        check_memory(lambda: build(recipe.model, 50))
    sizes = {"model_dim": 2**20, "feed_forward_dim": 2**20, "num_layers": 1000}
    huge = read_recipe(changed("model", **sizes), where="x.toml")
    with pytest.raises(RegardError, match="lower the sizes in"):
        check_memory(lambda: build(huge.model, 1_000_000))


def test_a_tokenizer_without_merges_is_refused_where_some_shall_be_left_out(tmp_path):
    path = tmp_path / "unigram.json"
    tokenizer = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -1.0)], unk_id=0))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(path))
    data = {"train": "mine.tsv", "tokenizer": str(path)}
    tables = TABLES | {"data": data}
    assert read_recipe(tables, where="here").tokenizer()
    recipe = read_recipe(tables | {"data": data | {"bpe_dropout": 0.1}}, where="here")
    with pytest.raises(RegardError, match=r"unigram\.json: a tokenizer of kind unigram has no merges"):
        recipe.tokenizer()

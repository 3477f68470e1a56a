"""A language model is trained by the same loop: it repeats, resumes, and its run is loaded, measured and told of."""

import json
import math
import random

import pytest
import torch

import regard
from regard.data.batch import EOS
from regard.errors import RegardError
from regard.training.recipe import read_recipe
from regard.training.run import Run
from regard.training.train import train_run

WORDS = ["the", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "and", "then"]
SIZES = {"type": "gpt", "model_dim": 16, "num_heads": 2, "num_layers": 2, "feed_forward_dim": 24, "max_length": 16}
TRAIN = {"batch_tokens": 64, "warmup_steps": 3, "validate_every": 4, "threads": 1, "device": "cpu"}
TRAIN |= {"label_smoothing": 0.0, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    generator = random.Random(1)
    path = tmp_path_factory.mktemp("stories") / "stories.jsonl"
    lines = (" ".join(generator.choices(WORDS, k=generator.randint(5, 30))) + ".\n" for _ in range(100))
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def trained(stories, tmp_path):
    def train(folder="run", *, data=(), model=(), resume=False, report=lambda progress: None, **settings):
        tables = {
            "name": "story",
            "data": {"train": str(stories), "tokenizer": "character", **dict(data)},
            "model": {**SIZES, **dict(model)},
            "train": {**TRAIN, "steps": 12, **settings},
        }
        recipe = read_recipe(tables, where="test")
        return train_run(recipe, tmp_path / folder, resume=resume, report=report)

    return train


def weights(run):
    return (run.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("settings", [{}, {"optimizer": "muon"}, {"data": {"documents": True}}], ids=str)
def test_a_run_repeats_and_goes_on_after_ctrl_c_bit_for_bit(trained, ctrl_c, settings):
    settings = {"model": {"dropout": 0.2}, "accumulate": 2, **settings}
    whole = trained("whole", **settings)
    assert weights(trained("again", **settings)) == weights(whole)
    stopped = trained("stopped", report=ctrl_c(7), **settings)
    assert (stopped.facts["status"], stopped.facts["steps"]) == ("interrupted", 7)
    assert weights(stopped) != weights(whole)
    resumed = trained("stopped", resume=True, **settings)
    assert weights(resumed) == weights(whole)


@pytest.mark.parametrize("tokenizer", ["character", "bpe"])
def test_it_learns_and_tells_the_bits_per_byte_of_dev(trained, metrics_of, tokenizer):
    run = trained(data={"tokenizer": tokenizer, "vocab_size": 300}, steps=120)
    lines = [line for line in metrics_of(run.path) if "dev_bits_per_byte" in line]
    assert [line["step"] for line in lines] == list(range(4, 121, 4))
    assert lines[-1]["dev_bits_per_byte"] < 0.7 * lines[0]["dev_bits_per_byte"]
    text = list(run.corpus().documents("dev"))
    tokens = sum(1 + len(run.tokenizer().encode(document)) for document in text)
    bits = run.facts["dev_loss"] / math.log(2) * tokens / sum(len(document.encode()) for document in text)
    assert run.facts["dev_bits_per_byte"] == pytest.approx(bits)
    assert f"{bits:.3f} bits per byte" in (run.path / "README.md").read_text()
    assert regard.evaluate(run.path, "dev").bits_per_byte == pytest.approx(bits)
    assert regard.evaluate(run.path).bits_per_byte != regard.evaluate(run.path, "dev").bits_per_byte


def test_documents_apart_are_another_task(trained):
    assert weights(trained("apart", data={"documents": True})) != weights(trained("together"))


def test_muon_trains_another_model(trained):
    assert weights(trained("muon", optimizer="muon")) != weights(trained("adamw"))


@pytest.mark.parametrize("tokenizer", ["character", "bpe"])
def test_a_run_is_loaded_as_a_language_model_that_writes_and_is_read(trained, tokenizer):
    run = trained(data={"tokenizer": tokenizer, "vocab_size": 300})
    model = regard.load(run.path)
    assert isinstance(model, regard.api.LanguageModel)
    own = run.tokenizer()
    text = "the cat</s>"
    assert model.encode(text)[0] == [EOS, *own.encode(text)]
    assert model.decode(own.encode("the dog")) == "the dog"
    written = model.generate("the cat", max_new_tokens=5)
    assert written.tokens == model.generate_ids(model.encode("the cat")[0], 5)
    assert written.text == own.decode([token for token in written.tokens if token != EOS])
    ids = torch.tensor([[EOS, *own.encode("the cat sat")]])
    with torch.no_grad():
        log_probs = run.module()(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
    assert model.perplexity("the cat sat") == pytest.approx(math.exp(-log_probs.mean().item()), rel=1e-5)
    reading = model.read("the cat", max_new_tokens=2)
    assert not reading.refused
    assert [token.id for token in reading.sequences["text"].tokens][:3] == model.encode("the cat")[0][:3]


def test_a_language_model_does_not_translate(trained):
    run = trained()
    with pytest.raises(RegardError, match="a language model, which translates nothing; `regard generate"):
        regard.api.load_translator(run.path)
    with pytest.raises(RegardError, match="without translating; leave out num_beams"):
        regard.evaluate(run.path, num_beams=3)


def test_the_same_run_cannot_go_on_with_other_text(trained, ctrl_c, stories, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(stories.read_text())
    trained("run", report=ctrl_c(5), data={"train": str(own)})
    own.write_text(stories.read_text().replace("cat", "cow"))
    with pytest.raises(RegardError, match="not those that it began with"):
        trained("run", resume=True, data={"train": str(own)})


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("data", {"tokenizer": "word"}, "lose some of the text"),
        ("data", {"strip_accents": True}, "lose some of the text"),
        ("data", {"dev": "a", "dev_links": "b"}, "dev_links is of sentence pairs"),
        ("data", {"train": "-"}, "save it as a file"),
        ("model", {"max_length": 65}, "cannot hold one window of model.max_length 65"),
        ("model", {"rotary": {"bas": 2.0}}, r"\[model\] rotary has no setting 'bas'; did you mean 'base'"),
        ("model", {"rotary": 5}, r"\[model\] rotary must be a table of settings, not 5"),
        ("train", {"optimizer": "sgd"}, "optimizer must be one of adamw, muon"),
    ],
)
def test_settings_that_make_no_language_model_are_refused(trained, section, settings, message):
    given = settings if section == "train" else {section: settings}
    with pytest.raises(RegardError, match=message):
        trained(**given)


def test_a_recipe_with_a_table_within_a_table_comes_back_from_toml(trained):
    settings = {"positions": "rotary", "rotary": {"base": 500.0, "scaling": "linear", "factor": 2.0}}
    run = trained(model=settings)
    assert Run.open(run.path).recipe == run.recipe
    assert run.recipe.model.rotary.base == 500.0


def test_each_kind_of_model_learns_of_its_own_kind_of_corpus():
    tables = {"data": {"corpus": "numbers-en-fr"}, "model": SIZES, "train": {"steps": 1}}
    with pytest.raises(RegardError, match="of type 'gpt' learns of plain text, and numbers-en-fr is sentence pairs"):
        read_recipe(tables, where="test").corpus()
    for settings in ({"documents": True}, {"tokenizer": "character"}):
        data = {"corpus": "numbers-en-fr", **settings}
        with pytest.raises(RegardError, match="are for plain text, not for a translator"):
            read_recipe({"data": data, "model": {"type": "rnn"}, "train": {"steps": 1}}, where="test")

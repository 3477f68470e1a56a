"""A training begins from what exists: a run, another vocabulary, or a pretrained model."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

import regard
from regard.cli.compare import compare
from regard.cli.evaluate import evaluate
from regard.errors import RegardError
from regard.evaluation.likelihood import likelihood
from regard.training.recipe import load_recipe
from regard.training.run import Run
from regard.training.train import train_run

transformers = pytest.importorskip("transformers")

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "then",
    "saw",
    "one",
    "dog",
    "run",
    "over",
    "there",
    "with",
    "its",
    "ball",
    "in",
    "front",
    "of",
    "us",
]
SETTINGS = {"threads": 1, "device": "cpu", "batch_tokens": 96, "warmup_steps": 2, "validate_every": 4, "steps": 6}
SIZES = {"type": "gpt", "model_dim": 16, "num_heads": 2, "num_layers": 2, "feed_forward_dim": 24, "max_length": 16}
RNN = {"type": "rnn", "embedding_dim": 16, "hidden_dim": 16, "max_length": 32}


def sentences(seed, count):
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(4, 9))) + "." for _ in range(count)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, lines in (
        ("text", sentences(1, 400)),
        ("other", [f"zebra {line} quokka" for line in sentences(2, 400)]),
    ):
        records = (json.dumps({"text": line}) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text("".join(records), encoding="utf-8")
    for name, seed, extra in (("pairs", 3, ""), ("others", 4, "zebra ")):
        lines = sentences(seed, 150)
        rows = (f"{extra}{line}\t{' '.join(reversed(line.split()))}\n" for line in lines)
        (folder / f"{name}.tsv").write_text("".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def pretrained(request, files, tmp_path_factory):
    """A tiny Hugging Face folder with random weights."""
    text = (files / "text.jsonl").read_text(encoding="utf-8")
    backend = Backend(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    backend.train_from_iterator([text], trainer)
    ends = {"eos_token_id": 0, "bos_token_id": 0}
    torch.manual_seed(0)
    if request.param == "llama":
        config = transformers.LlamaConfig(
            # more rows than tokens, as many models have
            vocab_size=310, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, dtype="bfloat16", **ends,
        )  # fmt: skip
        module = transformers.LlamaForCausalLM(config)
    else:
        sizes = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        drops = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
        module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **drops, **ends))
    folder = tmp_path_factory.mktemp("models") / request.param
    module.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>").save_pretrained(folder)
    return folder


def train(
    out, *, init=None, recipe="fine-tune", data, model=(), resume=False, report=lambda progress: None, **settings
):
    changes = {f"train.{name}": value for name, value in {**SETTINGS, **settings}.items()}
    changes |= {f"data.{name}": value for name, value in data.items()}
    changes |= {f"model.{name}": value for name, value in dict(model).items()}
    changes |= {} if init is None else {"model.init": str(init)}
    return train_run(load_recipe(recipe, changes), out, resume=resume, report=report)


def test_a_pretrained_model_is_trained_as_transformers_and_torch_train_it(pretrained, files, tmp_path):
    settings = {"learning_rate": 1e-3, "weight_decay": 0.1, "schedule": "constant", "clip": 0.5}
    run = train(tmp_path / "run", init=pretrained, data={"train": str(files / "text.jsonl")}, steps=5, **settings)
    witness = transformers.AutoModelForCausalLM.from_pretrained(pretrained, dtype=torch.float32)
    matrices = [p for p in witness.parameters() if p.ndim > 1]
    vectors = [p for p in witness.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-9)
    text = run.tokenized("train")
    order = text.order(batch_tokens=SETTINGS["batch_tokens"], seed=1, epoch=0)
    for step, starts in enumerate(order[:5], 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, step / SETTINGS["warmup_steps"])
        batch = text.batch(starts)
        logits = witness(batch.tokens).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(witness.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    # the run is a folder of transformers
    found = transformers.AutoModelForCausalLM.from_pretrained(run.path)
    assert found.dtype == torch.float32
    for (name, ours), theirs in zip(found.named_parameters(), witness.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_the_run_is_loaded_measured_and_written_on_by(pretrained, files, tmp_path):
    before = regard.load(pretrained)
    data = {"train": str(files / "text.jsonl")}
    run = train(tmp_path / "run", init=pretrained, data=data, steps=40, learning_rate=5e-3)
    dev = "".join(run.corpus().documents("dev"))
    model = regard.load(run.path)
    assert model.library == "regard"
    assert model.perplexity(dev) < 0.5 * before.perplexity(dev)
    assert regard.evaluate(run.path, "dev").loss == pytest.approx(run.facts["dev_loss"], abs=1e-5)
    assert model.generate("the cat", max_new_tokens=3).text
    assert "the" in model.read("the cat sat", max_new_tokens=2).tokens["text"][0]
    # the loss before is that of the model itself, on the same windows
    untouched = run.tokenized("dev")
    assert run.facts["init_dev_loss"] == pytest.approx(likelihood(before.module, untouched).loss, abs=1e-5)
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert f"begun from {pretrained}" in card
    assert "trained from scratch" not in card


def test_a_run_from_a_pretrained_model_goes_on_bit_for_bit(pretrained, files, tmp_path, ctrl_c):
    data = {"train": str(files / "text.jsonl")}
    whole = train(tmp_path / "whole", init=pretrained, data=data)
    stopped = train(tmp_path / "stopped", init=pretrained, data=data, report=ctrl_c(3))
    assert stopped.facts["status"] == "interrupted"
    resumed = train(tmp_path / "stopped", init=pretrained, data=data, resume=True)
    one, other = (load_file(run.path / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.facts["init_dev_loss"] == whole.facts["init_dev_loss"]


@pytest.fixture(scope="module")
def story(files, tmp_path_factory):
    data = {"train": str(files / "text.jsonl"), "tokenizer": "bpe", "vocab_size": 300}
    return train(tmp_path_factory.mktemp("runs") / "story", recipe="gpt-austen", data=data, model=SIZES, steps=30)


def test_a_run_begins_from_another_with_its_settings_and_tokenizer(story, files, tmp_path):
    run = train(tmp_path / "next", init=story.path, data={"train": str(files / "other.jsonl")})
    assert run.recipe.model == story.recipe.model
    assert (run.path / "tokenizer.json").read_bytes() == (story.path / "tokenizer.json").read_bytes()
    loss = likelihood(story.module(), run.tokenized("dev")).loss
    assert run.facts["init_dev_loss"] == pytest.approx(loss, abs=1e-6)
    assert Run.open(run.path).recipe.init == str(story.path)
    # and a run that began from another is begun from in turn, in Python too
    again = regard.train(
        "fine-tune",
        out=tmp_path / "again",
        init=run.path,
        changes={f"train.{name}": value for name, value in SETTINGS.items()}
        | {"data.train": str(files / "text.jsonl")},
    )
    assert again.generate("the", max_new_tokens=2).text


def test_a_finished_run_says_how_to_train_on(story, files):
    data = {"train": str(files / "text.jsonl"), "tokenizer": "bpe", "vocab_size": 300}
    with pytest.raises(RegardError, match=r"--init .* begins a new run from it"):
        train(story.path, recipe="gpt-austen", data=data, model=SIZES, steps=30, resume=True)


def test_a_translator_begins_from_another_whose_tokens_it_keeps_extends_or_replaces(files, tmp_path):
    base = train(
        tmp_path / "base", recipe="bible-rnn", model=RNN,
        data={"train": str(files / "pairs.tsv"), "tokenizer": "word", "vocab_size": 200},
    )  # fmt: skip
    new = {"train": str(files / "others.tsv")}
    old = base.tokenizer()
    for number, data in enumerate(({}, {"tokenizer": "extend"}, {"tokenizer": "bpe", "vocab_size": 320})):
        run = train(tmp_path / str(number), init=base.path, data=new | data, steps=1, learning_rate=1e-12)
        found, was = (load_file(each.path / "model.safetensors") for each in (run, base))
        assert found.keys() == was.keys()
        tokens = run.tokenizer()
        if number < 2:
            assert tokens.pieces[: len(old)] == old.pieces
            assert (b" zebra" in tokens.pieces) == (number == 1)
        at = {piece: id for id, piece in enumerate(old.pieces) if piece}
        shared = [(id, at[piece]) for id, piece in enumerate(tokens.pieces) if piece in at]
        assert len(shared) > 10
        for name, tensor in was.items():
            rows = (tensor, found[name])
            if tensor.shape[0] == len(old):
                rows = (tensor[[theirs for _, theirs in shared]], found[name][[ours for ours, _ in shared]])
            torch.testing.assert_close(*rows, rtol=0, atol=1e-9, msg=name)


def test_a_new_token_begins_as_the_mean_of_those_that_spelt_it(story, files, tmp_path):
    data = {"train": str(files / "other.jsonl"), "tokenizer": "extend", "vocab_size": 330}
    run = train(tmp_path / "run", init=story.path, data=data, steps=1, learning_rate=1e-12)
    old, new = story.tokenizer(), run.tokenizer()
    id = new.pieces.index(b"quokka" if b"quokka" in new.pieces else b" quokka")
    spelt = old.encode(new.pieces[id].decode())
    assert id >= len(old)
    assert len(spelt) > 1
    was, found = (load_file(each.path / "model.safetensors")["embedding.weight"] for each in (story, run))
    torch.testing.assert_close(found[id], was[spelt].mean(dim=0), rtol=0, atol=1e-7)


def test_settings_are_those_of_init_and_what_contradicts_them_is_refused(story, pretrained, files, tmp_path):
    data = {"train": str(files / "text.jsonl")}
    for model, told in (
        ({"model_dim": 32}, "asks for another model than .*: model_dim 32, not 16; leave that out"),
        ({"type": "transformer"}, "type is 'transformer', and .* is of type 'gpt'"),
    ):
        with pytest.raises(RegardError, match=told):
            train(tmp_path / "run", init=story.path, data=data, model=model)
        assert not (tmp_path / "run").exists()
    with pytest.raises(RegardError, match=r"asks for another model than .*: num_layers 1, not 2; leave that out"):
        train(tmp_path / "run", init=pretrained, data=data, model={"num_layers": 1})
    with pytest.raises(RegardError, match="takes no tokenizer beside"):
        train(tmp_path / "run", init=pretrained, data=data | {"tokenizer": "bpe"})
    with pytest.raises(RegardError, match="context_length is 65, and the model takes 64"):
        train(tmp_path / "run", init=pretrained, data=data | {"context_length": 65})


def test_what_cannot_be_begun_from_is_named(story, files, tmp_path):
    data = {"train": str(files / "text.jsonl")}
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    values = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 9, "n_embd": 8, "n_head": 1}
    (tmp_path / "pickled" / "config.json").write_text(json.dumps(values), encoding="utf-8")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"code")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}', encoding="utf-8")
    for init, told in (
        (tmp_path / "empty", "neither a run nor a Hugging Face folder"),
        (tmp_path / "absent", "there is no such run, Hugging Face folder or GGUF file"),
        (tmp_path / "bert", "Regard trains no .*BertForMaskedLM"),
        (tmp_path / "pickled", "tokenizer|pickle|may hold code"),
        (files / "text.jsonl", "this file is no model"),
    ):
        with pytest.raises(RegardError, match=told):
            train(tmp_path / "run", init=init, data=data)
        assert not (tmp_path / "run").exists()
    with pytest.raises(RegardError, match="is what the run is to begin from; choose another --out"):
        train(story.path, init=story.path, data=data)
    with pytest.raises(RegardError, match="'extend' is for a run that begins from another"):
        train(tmp_path / "run", recipe="gpt-austen", data=data | {"tokenizer": "extend"}, model=SIZES)


def test_vocab_size_of_an_extension_must_leave_room(story, files, tmp_path):
    data = {"train": str(files / "other.jsonl"), "tokenizer": "extend", "vocab_size": 300}
    with pytest.raises(RegardError, match="leaves no room beyond the 300 tokens"):
        train(tmp_path / "run", init=story.path, data=data)


def test_an_init_in_a_recipe_is_seen_from_the_recipes_folder(story, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Path(story.path).parent / "next.toml"
    data = f'[data]\ntrain = "{files}/text.jsonl"\n'
    recipe.write_text(f'{data}[model]\ninit = "story"\n[train]\nsteps = 1\n', encoding="utf-8")
    assert load_recipe(recipe).init == str(story.path)
    assert load_recipe(recipe).model == story.recipe.model
    assert np.isclose(load_recipe(recipe).train.learning_rate, 1e-3)


def test_a_run_is_compared_with_what_it_began_from(pretrained, files, tmp_path, capsys):
    data = {"train": str(files / "text.jsonl")}
    run = train(tmp_path / "run", init=pretrained, data=data, steps=20, learning_rate=5e-3)
    before, after = (regard.evaluate(model, "dev", data_of=run.path) for model in (pretrained, run.path))
    assert before.loss == pytest.approx(run.facts["init_dev_loss"], abs=1e-5)
    assert after.loss == pytest.approx(run.facts["dev_loss"], abs=1e-5)
    assert (before.bytes, before.tokens) == (after.bytes, after.tokens)
    compare(str(run.path), str(pretrained), json=True, split="dev")
    ours, theirs = json.loads(capsys.readouterr().out)["models"]
    assert (ours["name"], theirs["name"]) == ("run", pretrained.name)
    assert ours["bits_per_byte"] < theirs["bits_per_byte"]
    # on files each is measured as the other, with a run at hand and without
    own = [regard.evaluate(pretrained, files=[files / "other.jsonl"], data_of=of) for of in (None, run.path)]
    assert own[0] == own[1]
    evaluate(str(pretrained), file=(files / "other.jsonl",), json=True)
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(own[0].loss)

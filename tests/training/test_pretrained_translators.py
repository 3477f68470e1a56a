"""Pretrained translators are trained further as transformers would, and the run is a folder of both."""

import copy
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tests.pretrained_translators import LANGUAGES, MAKERS, SOURCES, TARGETS

import regard
from regard.data.batch import collate
from regard.errors import RegardError
from regard.models.pretrained.needs import quiet
from regard.training.init import Start
from regard.training.loss import add_gradients
from regard.training.recipe import load_recipe
from regard.training.run import Run
from regard.training.train import train_run

SETTINGS = {"threads": 1, "device": "cpu", "batch_tokens": 128, "warmup_steps": 1, "validate_every": 3, "steps": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.tsv"
    rows = [(f"{source} {word}", f"{target} {word}") for source, target in zip(SOURCES, TARGETS, strict=True)
            for word in ("sing", "lit", "mer", "tree", "park", "tapis")]  # fmt: skip
    path.write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")
    return path


def recipe_of(init, data, *, name=None, model=None, **settings):
    changes = {f"train.{key}": value for key, value in {**SETTINGS, **settings}.items()}
    languages = LANGUAGES[name or init.name] if model is None else model
    changes |= {f"model.{key}": value for key, value in languages.items()}
    return load_recipe("fine-tune", changes | {"data.train": str(data), "model.init": str(init)})


def train(out, init, data, *, resume=False, report=lambda progress: None, **settings):
    return train_run(recipe_of(init, data, **settings), out, resume=resume, report=report)


@pytest.mark.parametrize("name", MAKERS)
def test_a_gradient_is_that_of_transformers(folder_of, data, name):
    recipe = recipe_of(folder_of(name), data, model={**LANGUAGES[name], "dropout": 0.0})
    start = Start.find(folder_of(name))
    tokenizer = start.tokenizer(recipe.model)
    module = start.module(recipe.model, tokenizer).train()
    own = module.model
    backend = tokenizer.backend
    typed = [tokenizer.typed + source for source in SOURCES]
    found = backend(typed, text_target=TARGETS, padding=True, return_tensors="pt")
    labels = found["labels"].masked_fill(found["labels"] == backend.pad_token_id, -100)
    witness = copy.deepcopy(own)
    witness(input_ids=found["input_ids"], attention_mask=found["attention_mask"], labels=labels).loss.backward()
    wanted = {key: parameter.grad for key, parameter in witness.named_parameters() if parameter.grad is not None}
    batch = collate(tokenizer.encode_batch(SOURCES), tokenizer.target.encode_batch(TARGETS), tokenizer.frames)
    loss = add_gradients(module, [batch], recipe.train, seed=1, count=batch.label_count)
    assert loss > 0
    gradients = {key: parameter.grad for key, parameter in own.named_parameters() if parameter.grad is not None}
    assert gradients.keys() == wanted.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_a_run_is_a_folder_of_hugging_face_and_of_regard(folder_of, data, tmp_path, name):
    import transformers

    run = train(tmp_path / "run", folder_of(name), data, learning_rate=3e-3)
    assert run.facts["dev_loss"] < run.facts["init_dev_loss"]
    translator = regard.load(run.path)
    assert translator.run is not None
    assert translator.is_pretrained
    with quiet():
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(run.path)
        backend = transformers.AutoTokenizer.from_pretrained(run.path)
    batch = collate(
        translator.tokenizer.encode_batch(SOURCES),
        translator.tokenizer.target.encode_batch(TARGETS),
        translator.tokenizer.frames,
    )
    mask = (torch.arange(batch.source.shape[1]) < batch.source_lengths[:, None]).long()
    with torch.no_grad():
        logits = model(input_ids=batch.source, attention_mask=mask, decoder_input_ids=batch.inputs).logits
        torch.testing.assert_close(translator.module(batch).logits, logits)
        torch.testing.assert_close(run.module()(batch).logits, logits)
    # what it was told of languages is in the folder
    inputs = backend([translator.tokenizer.typed + SOURCES[0]], return_tensors="pt")
    written = model.generate(**inputs, num_beams=1, max_new_tokens=6)[0].tolist()
    before = translator.tokenizer.frames.target.before
    assert tuple(written[: len(before)]) == before
    assert translator.pairs("dev")
    assert translator.evaluate("dev", max_new_tokens=4).count == len(translator.pairs("dev"))


def test_a_run_goes_on_as_if_it_had_not_been_stopped(folder_of, data, tmp_path):
    # Marian has a bias that is no parameter
    settings = {"name": "marian", "model": {"dropout": 0.2}}
    whole = train(tmp_path / "whole", folder_of("marian"), data, **settings)

    def stop(progress):
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = train(tmp_path / "stopped", folder_of("marian"), data, report=stop, **settings)
    assert stopped.facts["status"] == "interrupted"
    resumed = train(tmp_path / "stopped", folder_of("marian"), data, resume=True, **settings)
    one, other = (load_file(run.path / "model.safetensors") for run in (whole, resumed))
    assert one.keys() == other.keys()
    assert "final_logits_bias" in one
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert json.loads((resumed.path / "config.json").read_text())["dropout"] == 0.1


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory without a name is Linux's alone")
def test_two_processes_train_as_one_does(folder_of, data, tmp_path):
    settings = {"model": {**LANGUAGES["marian"], "dropout": 0.0}, "batch_tokens": 1024, "steps": 2}
    one, two = (train(tmp_path / str(count), folder_of("marian"), data, threads=count, **settings) for count in (1, 2))
    one, two = (load_file(run.path / "model.safetensors") for run in (one, two))
    # a key's bias shifts all scores of a row alike: its gradient is 0 but for rounding, which Adam blows up
    for key in (name for name in one if not name.endswith("k_proj.bias")):
        torch.testing.assert_close(one[key], two[key], atol=1e-5, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


def test_a_run_is_trained_on_and_exported(folder_of, data, tmp_path):
    first = train(tmp_path / "first", folder_of("nllb"), data)
    second = train(tmp_path / "second", first.path, data, model={})
    # the languages are those of the first
    assert second.tokenizer().frames == first.tokenizer().frames
    assert second.facts["init_dev_loss"] == pytest.approx(first.facts["dev_loss"], abs=1e-5)
    translator = regard.load(second.path)
    agreement = translator.export("hf", tmp_path / "made")
    assert agreement.same == agreement.sentences == len(translator.pairs("dev"))
    other = train(tmp_path / "other", first.path, data, model={"target_language": "deu_Latn"}, steps=1)
    assert regard.load(other.path).tokenizer.frames != translator.tokenizer.frames


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
@pytest.mark.parametrize("name", ["m2m_100", "t5"])
def test_adapters_are_trained_alone_and_merged_when_loaded(folder_of, data, tmp_path, name):
    peft = pytest.importorskip("peft")
    import transformers

    model = {**LANGUAGES[name], "lora": {"rank": 2}}
    run = train(tmp_path / "run", folder_of(name), data, model=model, learning_rate=1e-2)
    assert run.facts["trained_parameters"] < run.facts["parameters"] / 2
    assert not (run.path / "model.safetensors").exists()
    translator = regard.load(run.path)
    batch = collate(
        translator.tokenizer.encode_batch(SOURCES),
        translator.tokenizer.target.encode_batch(TARGETS),
        translator.tokenizer.frames,
    )
    mask = (torch.arange(batch.source.shape[1]) < batch.source_lengths[:, None]).long()
    with quiet(), torch.no_grad():
        base = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder_of(name))
        adapted = peft.PeftModel.from_pretrained(base, run.path)
        wanted = adapted(input_ids=batch.source, attention_mask=mask, decoder_input_ids=batch.inputs).logits
        torch.testing.assert_close(translator.module(batch).logits, wanted, atol=1e-4, rtol=1e-4)
    assert run.facts["dev_loss"] < run.facts["init_dev_loss"]


def test_a_task_is_kept_with_the_run(folder_of, data, tmp_path):
    prefix = "translate English to French: "
    run = train(tmp_path / "run", folder_of("t5"), data, model={"source_prefix": prefix})
    assert regard.load(run.path).tokenizer.typed == prefix
    assert Run.open(run.path).tokenizer().frames == regard.load(run.path).tokenizer.frames


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("nllb", {}, "give target_language, such as"),
        ("nllb", {"model.target_language": "fra"}, "no tag for target_language 'fra'"),
        ("nllb", {"model.target_language": "fra_Latn", "model.max_length": 65}, "takes 64 tokens at most"),
        ("t5", {"data.bpe_dropout": 0.1}, "bpe_dropout is for tokenizers of Regard's"),
        ("t5", {"data.tokenizer": "bpe"}, "takes no tokenizer beside"),
        ("t5", {"model.heads": 2}, "has no setting 'heads'"),
        ("t5", {"model.type": "transformer"}, "is of type 'pretrained'"),
        ("t5", {"data.context_length": 8}, "context_length is of plain text"),
    ],
)
def test_what_makes_no_sense_is_told_before_a_folder_is_made(folder_of, data, tmp_path, name, changes, says):
    changes = {"data.train": str(data), "train.steps": 2, "model.init": str(folder_of(name)), **changes}
    with pytest.raises(RegardError, match=says):
        train_run(load_recipe("fine-tune", changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pretrained_model_begins_from_one(data):
    with pytest.raises(RegardError, match="type 'pretrained' begins from a model; name its folder as init"):
        load_recipe("fine-tune", {"data.train": str(data), "model.type": "pretrained"})
    with pytest.raises(RegardError, match="begins from one: name its folder as"):
        regard.models.build(regard.models.PretrainedConfig(), 10)


def test_letters_that_the_tokenizer_lacks_are_told(folder_of, tmp_path, caplog):
    rows = "".join(f"{source}\t猫が眠る{index}\n" for index, source in enumerate(SOURCES * 3))
    (tmp_path / "pairs.tsv").write_text(rows, encoding="utf-8")
    train(tmp_path / "run", folder_of("nllb"), tmp_path / "pairs.tsv", steps=1)
    assert "are unknown to the tokenizer" in caplog.text


def test_the_command_trains_and_translates(folder_of, data, tmp_path):
    run = tmp_path / "run"
    asked = ["train", "fine-tune", "--init", folder_of("nllb"), "--out", run, "--set", f"data.train={data}"]
    for setting in ("model.target_language=fra_Latn", "train.steps=1", "train.batch_tokens=128", "train.threads=1"):
        asked += ["--set", setting]
    done = subprocess.run([sys.executable, "-m", "regard", *map(str, asked)], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    done = subprocess.run(
        [sys.executable, "-m", "regard", "translate", str(run), "-"], input=b"the cat\n", capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout.splitlines()) == 1
    asked = [
        "compare",
        folder_of("nllb"),
        run,
        "--file",
        data,
        "--target-language",
        "fra_Latn",
        "--max-new-tokens",
        3,
    ]
    done = subprocess.run([sys.executable, "-m", "regard", *map(str, asked), "--json"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    before, after = json.loads(done.stdout)["models"]
    assert after["perplexity"] < before["perplexity"]

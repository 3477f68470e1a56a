"""Runs that train adapters of a pretrained model, and runs that learn the answers of conversations."""

import json
import random

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import regard
from regard.cli.export import export
from regard.errors import RegardError
from regard.evaluation.likelihood import likelihood
from regard.training.checkpoint import open_checkpoint
from regard.training.init import Start
from regard.training.lora import add_adapters
from regard.training.recipe import load_recipe
from regard.training.run import Run
from regard.training.train import train_run

# peft asks transformers by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SETTINGS = {"threads": 1, "device": "cpu", "batch_tokens": 512, "warmup_steps": 2, "validate_every": 3, "steps": 6}
LORA = {"rank": 2, "alpha": 8.0}
IDS = torch.tensor([[5, 70, 8, 8, 3, 90, 2]])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    generator = random.Random(1)
    numbers = [(generator.randint(0, 99), generator.randint(0, 9)) for _ in range(300)]
    rows = "".join(f"What comes after {n} and {m}?,{n + 1}\n" for n, m in numbers)
    (folder / "answers.csv").write_text(f"question,answer\n{rows}", encoding="utf-8")
    text = "".join(json.dumps({"text": f"{n} comes before {n + 1}, {m} times."}) + "\n" for n, m in numbers)
    (folder / "text.jsonl").write_text(text, encoding="utf-8")
    return folder


def saved(folder, kind, template=TEMPLATE):
    """A tiny model with random weights and a tokenizer of single bytes."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    ends = {"vocab_size": 260, "eos_token_id": 0, "bos_token_id": None}
    torch.manual_seed(0)
    if kind == "gpt2":
        drops = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
        module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **drops, **ends))
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": True}
        module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **ends))
    module.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=SPECIAL[0])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "llama", "llama")


def train(out, init, data, *, lora=None, resume=False, report=lambda progress: None, **settings):
    changes = {f"train.{name}": value for name, value in {**SETTINGS, **settings}.items()}
    changes |= {"data.train": str(data), "data.context_length": 64, "model.init": str(init)}
    changes |= {} if lora is None else {"model.lora": lora}
    return train_run(load_recipe("fine-tune", changes), out, resume=resume, report=report)


@torch.no_grad()
def logits(module):
    return module(IDS).logits


def test_a_run_with_lora_leaves_an_adapter_that_peft_and_regard_load(llama, files, tmp_path):
    base = {path: path.read_bytes() for path in llama.iterdir()}
    run = train(tmp_path / "run", llama, files / "text.jsonl", lora=LORA, steps=20, learning_rate=1e-2)
    assert run.facts["dev_loss"] < run.facts["init_dev_loss"] - 0.1
    assert {path: path.read_bytes() for path in llama.iterdir()} == base
    assert not (run.path / "model.safetensors").exists()
    # of each layer query, key and value in one, the output, gate and up in one, and down
    shapes = [(32, 64), (32, 32), (32, 96), (48, 32)]
    assert run.facts["trained_parameters"] == 2 * sum(2 * (columns + rows) for columns, rows in shapes)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(llama)
    theirs = peft.PeftModel.from_pretrained(theirs, run.path)
    found = regard.load(run.path)
    for module in (found.module, run.module(), Run.open(run.path).module()):
        torch.testing.assert_close(logits(module), logits(theirs), rtol=0, atol=1e-5)
    with theirs.disable_adapter():
        assert torch.equal(logits(regard.load(llama, library="transformers").module), logits(theirs))
    assert regard.evaluate(run.path, "dev").loss == pytest.approx(run.facts["dev_loss"], abs=1e-5)
    assert Run.open(run.path).recipe == run.recipe
    assert f"begun from {llama} and adapted by LoRA" in (run.path / "README.md").read_text()
    found.export("hf", tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(theirs), rtol=0, atol=1e-5)


def test_adapters_are_trained_as_peft_and_torch_train_them(files, tmp_path):
    """Of GPT-2, whose query, key and value peft adapts together, too."""
    base = saved(tmp_path / "base", "gpt2")
    settings = {"learning_rate": 1e-2, "weight_decay": 0.1, "schedule": "constant", "clip": 0.5, "steps": 5}
    run = train(tmp_path / "run", base, files / "answers.csv", lora=LORA, **settings)
    settings = peft.LoraConfig(
        r=2, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    witness = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), settings)
    # from the same first matrices: those of Regard's own model with the same seed
    torch.manual_seed(1)
    own = Start(base, is_pretrained=True).module(run.recipe.model, run.tokenizer())
    add_adapters(own, run.recipe.lora)
    pairs = [(name, each) for name, each in witness.named_parameters() if each.requires_grad]
    ours = [each for each in own.parameters() if each.requires_grad]
    with torch.no_grad():
        for (_, parameter), each in zip(pairs, ours, strict=True):
            parameter.copy_(each)
    optimizer = torch.optim.AdamW([each for _, each in pairs], betas=(0.9, 0.98), eps=1e-9, weight_decay=0.1)
    rows = run.tokenized("train")
    for step, batch in enumerate(rows.order(batch_tokens=512, seed=1, epoch=0)[:5], 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1, step / 2)
        batch = rows.batch(batch)
        scores = witness(batch.tokens).logits.flatten(0, 1)
        torch.nn.functional.cross_entropy(scores, batch.labels.flatten(), ignore_index=-1).backward()
        torch.nn.utils.clip_grad_norm_(witness.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    found = load_file(run.path / "adapter_model.safetensors")
    assert len(found) == len(pairs)
    for name, parameter in pairs:
        torch.testing.assert_close(found[name.replace(".default", "")], parameter, rtol=1e-4, atol=1e-5, msg=name)


def test_a_run_with_lora_goes_on_bit_for_bit_and_keeps_adapters_alone(llama, files, tmp_path, ctrl_c):
    settings = {"lora": {**LORA, "dropout": 0.1}}
    whole = train(tmp_path / "whole", llama, files / "answers.csv", **settings)
    stopped = train(tmp_path / "run", llama, files / "answers.csv", report=ctrl_c(3), **settings)
    assert stopped.facts["status"] == "interrupted"
    kept, moments = (open_checkpoint(stopped.path / "resume", name) for name in ("model", "optimizer"))
    assert all(".lora_" in name for name in (*kept, *moments))
    resumed = train(tmp_path / "run", llama, files / "answers.csv", resume=True, **settings)
    one, other = (load_file(run.path / "adapter_model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_gradient_of_two_processes_is_that_of_one(llama, files, tmp_path):
    settings = {"lora": LORA, "batch_tokens": 1024, "steps": 2, "learning_rate": 1e-3}
    one, two = (
        load_file(
            train(tmp_path / str(count), llama, files / "answers.csv", threads=count, **settings).path
            / "adapter_model.safetensors"
        )
        for count in (1, 2)
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_begins_from_a_run_with_lora_and_adapts_it_further(llama, files, tmp_path):
    first = train(tmp_path / "first", llama, files / "text.jsonl", lora=LORA, learning_rate=1e-2)
    whole = train(tmp_path / "whole", first.path, files / "text.jsonl", steps=1)
    second = train(tmp_path / "second", first.path, files / "text.jsonl", lora=LORA, learning_rate=1e-2)
    for run in (whole, second):
        assert run.facts["init_dev_loss"] == pytest.approx(first.facts["dev_loss"], abs=1e-5)
    assert (whole.path / "model.safetensors").exists()
    assert regard.evaluate(second.path, "dev").loss == pytest.approx(second.facts["dev_loss"], abs=1e-5)


def test_answers_are_learned_measured_and_written(llama, files, tmp_path):
    run = train(tmp_path / "run", llama, files / "answers.csv", steps=30, learning_rate=3e-3)
    rest = sum(len(run.tokenized(split)) for split in ("dev", "test"))
    assert rest > 20
    assert run.facts["conversations"] == 300 - rest
    rows, figures = run.tokenized("train"), run.facts["look"]["figures"]
    assert (figures["tokens"], figures["answer_tokens"]) == (rows.num_tokens, rows.num_labels)
    assert figures["answer_tokens"] < figures["tokens"] / 5
    dev = run.tokenized("dev")
    # what is not learned costs nothing: of 1 to 3 digits and the end
    assert dev.num_labels < 4.01 * len(dev)
    quality = regard.evaluate(run.path, "dev")
    assert quality.loss == pytest.approx(run.facts["dev_loss"], abs=1e-5)
    assert run.facts["dev_bits_per_byte"] == pytest.approx(quality.bits_per_byte, abs=1e-5)
    assert quality.loss < 0.8 * likelihood(regard.load(llama).module, dev).loss
    assert regard.evaluate(run.path, files=[files / "answers.csv"]).documents == 300
    assert "bytes of answers, which alone are learned" in (run.path / "README.md").read_text()


def test_what_was_learned_is_the_answer_to_a_chat_and_its_end(llama, tmp_path):
    path = tmp_path / "always.csv"
    path.write_text("question,answer\n" + "".join(f"Is {n} so?,Yes.\n" for n in range(60)), encoding="utf-8")
    run = train(tmp_path / "run", llama, path, steps=40, learning_rate=1e-2)
    assert regard.load(run.path).generate("Is 99 so?", chat=True, max_new_tokens=9).text == "Yes."


def test_conversations_that_do_not_fit_the_window_are_told_of(llama, files, tmp_path, caplog):
    path = tmp_path / "long.csv"
    path.write_text((files / "answers.csv").read_text() + f"Long? {'a' * 99},1\n", encoding="utf-8")
    run = train(tmp_path / "run", llama, path, steps=1)
    assert run.facts["look"]["figures"]["too_long"] == 1
    assert "conversations skipped because they have more than 64 tokens: 1; the first asks 'Long? aaa" in caplog.text


def test_a_model_from_noise_learns_answers_in_the_plain_frame(files, tmp_path):
    changes = {f"train.{name}": value for name, value in SETTINGS.items()}
    changes |= {"data.train": str(files / "answers.csv"), "data.vocab_size": 300, "model.max_length": 64}
    changes |= {"model.model_dim": 16, "model.num_heads": 2, "model.num_layers": 1, "model.feed_forward_dim": 24}
    run = train_run(load_recipe("gpt-austen", changes), tmp_path / "run")
    batch = run.tokenized("dev").batch([0])
    # what it learned its vocabulary of is what is said, not the JSON around it
    assert b"messages" not in b" ".join(run.tokenizer().pieces)
    text = run.tokenizer().decode(batch.tokens[0].tolist())
    assert text.startswith("Question: What comes after")
    assert "\nAnswer: " in text
    assert regard.load(run.path).generate("What comes after 1 and 2?", chat=True, max_new_tokens=2)


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ({"ranks": 2}, "lora has no setting 'ranks'; did you mean 'rank'"),
        ({"rank": 0}, "lora rank must be at least 1"),
        ({"dropout": 1.0}, "lora dropout must be below 1"),
        (True, "lora must be a table of settings"),
    ],
)
def test_settings_of_lora_are_checked(llama, files, tmp_path, lora, told):
    with pytest.raises(RegardError, match=told):
        train(tmp_path / "run", llama, files / "text.jsonl", lora=lora)


def test_lora_without_a_pretrained_model_is_refused(files, tmp_path):
    data = {"data.train": str(files / "text.jsonl"), "train.steps": 1, "model.lora": LORA}
    with pytest.raises(RegardError, match="lora adapts a model that exists; name it by init"):
        load_recipe("gpt-austen", data)
    sizes = {"model.model_dim": 16, "model.num_heads": 2, "model.num_layers": 1, "model.max_length": 16}
    own = train_run(
        load_recipe("gpt-austen", {**data, **sizes, "train.batch_tokens": 64, "model.lora": None}), tmp_path
    )
    with pytest.raises(RegardError, match=r"lora adapts pretrained models, and .* is none"):
        load_recipe("fine-tune", {**data, "model.init": str(own.path)})


def test_an_adapter_is_exported_apart_or_merged(llama, files, tmp_path, capsys):
    run = train(tmp_path / "run", llama, files / "text.jsonl", lora=LORA, steps=3, learning_rate=1e-2)
    apart, merged = tmp_path / "apart", tmp_path / "merged"
    export(str(run.path), apart, to="hf", apart=True)
    export(str(run.path), merged, to="hf")
    assert capsys.readouterr().out == f"{apart}\n{merged}\n"
    assert not (apart / "config.json").exists()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(llama)
    adapted = peft.PeftModel.from_pretrained(theirs, apart)
    for module in (adapted, transformers.AutoModelForCausalLM.from_pretrained(merged)):
        torch.testing.assert_close(logits(module), logits(run.module()), rtol=0, atol=1e-5)
    for model, folder, told in ((llama, tmp_path / "new", "it has no adapter"), (run.path, apart, "exists already")):
        with pytest.raises(RegardError, match=told):
            export(str(model), folder, to="hf", apart=True)

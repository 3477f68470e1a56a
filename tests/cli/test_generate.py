"""`regard generate`: text as it comes, as JSON, with what it looked at."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import regard

transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

SPECIAL = ["<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}<|im_start|>"
DRAWN = ("--temperature", 1.5, "--seed", 4)
SETTINGS = {"temperature": 1.5, "seed": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model that writes bytes and never ends."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(2)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=258, **sizes, max_position_embeddings=100_000, bos_token_id=None, eos_token_id=None
    )
    module = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    module.save_pretrained(path)
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=SPECIAL[1], chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return regard.load(folder)


def output(done):
    assert done.code == 0, done.err
    return done.out


def test_the_command_writes_what_the_library_writes(cli, folder, model):
    for arguments, settings in (((), {}), (DRAWN, SETTINGS), ((*DRAWN, "--chat"), {**SETTINGS, "chat": True})):
        found = output(cli("generate", folder, "one two", "--max-new-tokens", 30, *arguments))
        assert found == model.generate("one two", max_new_tokens=30, **settings).text + "\n"


def test_what_is_written_begins_with_the_prefix(cli, folder):
    assert output(cli("generate", folder, "one two", "--max-new-tokens", 3, "--prefix", " drei é")).startswith(
        " drei é"
    )
    done = cli("generate", folder, "one", "--prefix", "a stop", "--stop", "stop")
    assert (done.code, done.out) == (1, "")
    assert "the prefix holds 'stop', at which the text would end" in done.err


@pytest.mark.parametrize("arguments", [("-",), ()])
def test_a_prompt_comes_from_standard_input(cli, folder, model, arguments):
    found = output(cli("generate", folder, *arguments, "--max-new-tokens", 9, given=b"zwei\ndrei\n"))
    assert found == model.generate("zwei\ndrei", max_new_tokens=9).text + "\n"


def test_a_conversation_is_answered(cli, folder, model, tmp_path):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    path, kept = tmp_path / "chat.json", tmp_path / "read.json"
    path.write_text(json.dumps(chat), encoding="utf-8")
    wanted = model.generate(messages=chat, max_new_tokens=9)
    asked = ("generate", folder, "--max-new-tokens", 9)
    assert output(cli(*asked, "--messages", path, "--attention", kept)) == wanted.text + "\n"
    assert output(cli(*asked, "--messages", "-", given=path.read_bytes())) == wanted.text + "\n"
    assert regard.Reading.load(kept).settings["turns"][3]["role"] == "user"
    told = json.loads(output(cli(*asked, "--messages", path, "--json")))
    assert (told["messages"], told["text"]) == (chat, wanted.text)
    system = model.generate(messages=chat[:2], max_new_tokens=9)
    assert output(cli(*asked, "one", "--system", "Be brief.")) == system.text + "\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("one", "--messages", "chat.json"), 2, "Mutually exclusive arguments: {PROMPT, --messages}"),
        (("--messages", "none.json"), 1, "none.json: cannot be read: No such file"),
        (("--messages", "none.json", "--system", "a"), 1, "--system goes with a prompt"),
        (("one", "--system", ""), 1, "--system and prompt: message 1 (system) is empty"),
    ],
)
def test_a_conversation_that_cannot_be_answered_is_told(cli, folder, arguments, code, says):
    done = cli("generate", folder, *arguments)
    assert (done.code, done.out) == (code, "")
    assert says in done.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 3),
        ("top_p", 0.2),
        ("min_p", 0.8),
        ("repetition_penalty", 3.0),
        ("max_new_tokens", 7),
        ("temperature", 0.2),
        ("seed", 5),
    ],
)
def test_every_setting_reaches_the_model(cli, folder, model, name, value):
    base = {"max_new_tokens": 25, **SETTINGS}
    asked = base | {name: value}
    flags = [part for name, value in asked.items() for part in (f"--{name.replace('_', '-')}", value)]
    wanted = model.generate("one", **asked)
    assert output(cli("generate", folder, "one", *flags)) == wanted.text + "\n"
    assert wanted.tokens != model.generate("one", **base).tokens


def test_stop_texts_may_be_several(cli, folder, model):
    whole = model.generate("one", max_new_tokens=60, **SETTINGS).text
    stops = ["---", whole[14:16], whole[9:12]]
    flags = [part for stop in stops for part in ("--stop", stop)]
    found = output(cli("generate", folder, *flags[2:], "--stop=---", "one", "--max-new-tokens", 60, *DRAWN))
    assert found == model.generate("one", max_new_tokens=60, stop=stops, **SETTINGS).text + "\n"
    assert len(found) < 20


@pytest.mark.parametrize("flag", ["-n", "--num-samples"])
def test_samples_are_shown_one_after_the_other(cli, folder, model, flag):
    samples = model.generate("one", n=3, max_new_tokens=8, **SETTINGS)
    found = output(cli("generate", folder, "one", flag, 3, "--max-new-tokens", 8, *DRAWN))
    assert found == "\n".join(each.text + "\n" for each in samples)


@pytest.mark.parametrize("count", [1, 2])
def test_json_is_an_object_for_each_text(cli, folder, model, count):
    found = output(cli("generate", folder, "é", "-n", count, "--max-new-tokens", 8, "--json", *DRAWN))
    samples = model.generate("é", n=count, max_new_tokens=8, **SETTINGS)
    lines = found.removesuffix("\n").split("\n")
    assert [json.loads(line) for line in lines] == [
        {
            "prompt": "é",
            "text": each.text,
            "tokens": each.tokens,
            "log_probability": each.log_probability,
            "finished": each.finished,
        }
        for each in (samples if count > 1 else [samples])
    ]


@pytest.mark.parametrize("library", ["regard", "transformers"])
def test_attention_is_that_of_the_text_that_was_written(cli, folder, library, tmp_path):
    path = tmp_path / "reading.safetensors"
    asked = ("generate", folder, "one two", "--max-new-tokens", 6, *DRAWN, "--library", library)
    shown = output(cli(*asked, "--attention", path))
    assert shown == output(cli(*asked))
    model = regard.load(folder, library=library)
    written = model.generate("one two", max_new_tokens=6, **SETTINGS)
    reading, wanted = regard.Reading.load(path), model.read_written("one two", written)
    assert reading.rows("decoder") == wanted.rows("decoder")
    for layer in wanted.layers("decoder"):
        np.testing.assert_allclose(reading.weights("decoder", layer), wanted.weights("decoder", layer), atol=1e-6)
    assert [token.id for token in reading.sequences["text"].tokens][-6:] == written.tokens
    page = tmp_path / "page.html"
    assert output(cli(*asked, "--attention", page)) == shown
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_text_is_shown_as_it_comes_and_what_was_written_stays_when_it_is_interrupted(folder):
    command = [sys.executable, "-m", "regard", "generate", str(folder), "one", "--max-new-tokens", "90000"]
    command += ["--temperature", "1", "--top-k", "200"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.read(200)
    assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, b"regard: interrupted\n")
    assert (first + rest).endswith(b"\n")
    model = regard.load(folder)
    whole = model.generate("one", max_new_tokens=400, temperature=1, top_k=200).text
    shown = (first + rest).decode()
    assert shown[:100] == whole[:100]


@pytest.mark.parametrize(
    "arguments",
    [
        ["one", "--max-tokens", "3"],
        ["one", "two"],
        ["--unknown"],
        ["one", "--temperature", "warm"],
        ["one", "--library", "jax"],
        ["one", "--dtype", "float8"],
        ["one", "--stop"],
    ],
)
def test_misuse_exits_with_2(cli, folder, arguments):
    done = cli("generate", folder, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("regard: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-new-tokens", "0"], "max_new_tokens must be at least 1, not 0"),
        (["--max-new-tokens", "-3"], "max_new_tokens must be at least 1, not -3"),
        (["--temperature", "-1"], "temperature must be at least 0, not -1.0"),
        (["--temperature", "nan"], "temperature must be a finite number, not nan"),
        (["--top-p", "0"], "top_p must be above 0"),
        (["--top-p", "1.5"], "top_p must be at most 1"),
        (["--stop", ""], "an empty stop text"),
        (["-n", "0"], "--num-samples must be at least 1, not 0"),
        (["-n", "2", "--attention", "a.json"], "--attention keeps the reading of one text; leave out --num-samples"),
        (["--attention", "a.csv"], "--attention a.csv: a reading is saved as .safetensors"),
    ],
)
def test_a_value_without_sense_exits_with_1_before_a_model_is_opened(cli, tmp_path, arguments, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("generate", tmp_path / "none", "one", *arguments)
    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert list(tmp_path.iterdir()) == []


def test_models_and_prompts_that_cannot_be_used_are_told(cli, folder, runs, tmp_path):
    for arguments, given, says in (
        ((tmp_path / "none", "one"), b"", "none"),
        ((runs["rnn"], "one"), b"", "rnn is a translator; `regard translate"),
        ((folder, ""), b"", "prompt 1 is empty"),
        ((folder, "-"), b"\xff", "standard input: not UTF-8 at byte 0"),
        ((folder, "a" * 100_001), b"", "prompt 1 has 100001 tokens, and the model takes 100000"),
    ):
        done = cli("generate", *arguments, given=given)
        assert done.code == 1
        assert done.out.strip() == ""
        assert says in done.err


def test_a_model_is_exported_and_goes_on_writing_the_same(cli, folder, model, tmp_path):
    done = cli("export", folder, tmp_path / "made", "--to", "hf")
    assert (done.code, done.out) == (0, f"{tmp_path}/made\n"), done.err
    assert "tiny: hf gives the same logits" in done.err
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "made")
    ids = tokenizer("one two", return_tensors="pt")
    written = theirs.generate(**ids, max_new_tokens=9, do_sample=False, pad_token_id=0)
    wanted = model.generate("one two", max_new_tokens=9)
    assert written[0, ids["input_ids"].shape[1] :].tolist() == wanted.tokens
    assert output(cli("generate", tmp_path / "made", "one two", "--max-new-tokens", 9)) == wanted.text + "\n"
    for arguments, says in (
        ((folder, tmp_path / "made", "--to", "hf"), "made exists already"),
        ((folder, tmp_path / "b", "--to", "ctranslate2"), "a language model is exported to 'hf'"),
        ((folder, tmp_path / "b", "--to", "hf", "--sample", "x.txt"), "--sample is of translations"),
    ):
        refused = cli("export", *arguments)
        assert refused.code == 1
        assert says in refused.err
    assert not (tmp_path / "b").exists()


@pytest.mark.download
def test_smollm2_answers(cli):
    asked = ("What is the capital of France?", "--chat", "--max-new-tokens", 20, "--temperature", 0)
    assert "Paris" in output(cli("generate", "smollm2", *asked))


def test_text_is_the_same_on_any_number_of_threads(cli, folder):
    asked = ("generate", folder, "one two", "--max-new-tokens", 6)
    texts = {output(cli(*asked, *more)) for more in ((), ("--threads", 1), ("--threads", 2))}
    assert len(texts) == 1
    assert cli(*asked, "--threads", 0).code == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler to compile with")
def test_a_compiled_model_writes_the_same(cli, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("REGARD_CACHE", str(tmp_path))
    asked = ("generate", folder, "one two", "--max-new-tokens", 6)
    compiled = cli(*asked, "--compile")
    assert output(compiled) == output(cli(*asked))
    assert len(list((tmp_path / "compiled").iterdir())) == 1
    told = cli(*asked, "--compile", "--library", "transformers")
    assert (told.code, "only a model of Regard's is compiled" in told.err) == (1, True)

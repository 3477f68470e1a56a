"""`regard read` of language models: one tiny random model of each kind, without a network."""

import json
import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import regard

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "東京?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Who?"},
]
PROMPT = "The cat sat. 東京は日本。 Who?"


def byte_level():
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=259, max_position_embeddings=160, bos_token_id=0, eos_token_id=2, **sizes)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    byte_level().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "bert"
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 20}
    BertForMaskedLM(BertConfig(vocab_size=259, **sizes)).save_pretrained(path)
    byte_level().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "t5"
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 2}
    config = T5Config(vocab_size=259, decoder_start_token_id=0, eos_token_id=2, pad_token_id=0, **sizes)
    T5ForConditionalGeneration(config).save_pretrained(path)
    byte_level().save_pretrained(path)
    return path


def printed(reading):
    """What --json tells: the reading, and the sources of its answer, which files keep with the settings."""
    found = reading.sources().to_json()
    document = reading.to_json()
    return {**document, "settings": {**document["settings"], "sources": found}, **found}


def test_an_answer_is_kept_and_printed_as_the_library_reads_it(cli, llama, tmp_path):
    paths = [tmp_path / f"a{suffix}" for suffix in (".safetensors", ".json", ".png", ".svg", ".pdf")]
    outs = [part for path in paths for part in ("--out", path)]
    options = ["--max-new-tokens", 5, "--top-k", 2, "--statistics", "entropy,received", "--statistics", "segments"]
    done = cli("read", llama, "--prompt", PROMPT, "--json", *options, *outs)
    assert (done.code, done.err) == (0, "")
    statistics = ["entropy", "received", "segments"]
    wanted = regard.read(llama, PROMPT, max_new_tokens=5, top_k=2, statistics=statistics)
    assert json.loads(done.out) == printed(wanted)
    # a file keeps what the answer rests on with its settings
    kept = json.loads(paths[1].read_text(encoding="utf-8"))
    assert kept["settings"].pop("sources") == wanted.sources().to_json()
    assert kept == wanted.to_json()
    kept = regard.Reading.load(paths[0])
    np.testing.assert_array_equal(kept.weights("decoder", 2), wanted.weights("decoder", 2))
    assert all(path.stat().st_size for path in paths)


@pytest.mark.parametrize("columns", [80, 30])
def test_what_is_shown_fits_its_terminal_and_has_no_colour(cli, llama, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = cli("read", llama, "--prompt", PROMPT, "--max-new-tokens", 5)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= columns
    assert "\x1b" not in done.out
    told = " ".join(done.out.split())
    assert "What the whole answer (5 tokens) looked at" in told
    assert "first token T" in told
    assert "東京は日本。" in told
    assert "read: 3 decoder layers; checked:" in told


def test_a_terminal_has_colour_unless_it_wants_none(cli, llama, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm")
    asked = ["read", llama, "--prompt", PROMPT, "--max-new-tokens", 5]
    assert "48;2;255;127;42" in cli(*asked).out
    monkeypatch.setenv("NO_COLOR", "1")
    plain = cli(*asked)
    assert plain.code == 0
    assert "38;2" not in plain.out
    assert "Strongest sentences of the prompt" in plain.out


@pytest.mark.parametrize("sort", ["prompt", "text"])
def test_texts_come_from_files_and_standard_input(cli, llama, tmp_path, sort):
    asked = ["read", llama, "--json", "--max-new-tokens", 3]
    wanted = cli(*asked, f"--{sort}", PROMPT).out
    data = f"{PROMPT}\n".encode()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + data)
    assert cli(*asked, f"--{sort}", "-", given=data).out == wanted
    assert cli(*asked, f"--{sort}-file", tmp_path / "a.txt").out == wanted
    assert cli(*asked, f"--{sort}-file", "-", given=data).out == wanted
    assert json.loads(wanted)["rows"]["decoder"][-1] == len(PROMPT.encode()) - 1 + (2 if sort == "prompt" else 0)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ("last", [-1]),
        ("all", slice(None)),
        ("3,5,-1", [3, 5, -1]),
        ("-2,-1", [-2, -1]),
        ("2:4", [2, 3]),
        (":2", [0, 1]),
    ],
)
def test_rows_are_chosen_by_name_place_or_range(cli, llama, rows, wanted):
    done = cli("read", llama, "--text", PROMPT, "--rows", rows, "--layers", "0:2", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    places = np.arange(len(PROMPT.encode()))[wanted]
    assert document["rows"]["decoder"] == places.tolist()
    assert sorted(document["weights"]) == ["decoder.0", "decoder.1"]


def test_a_chat_is_read_in_its_template(cli, llama):
    done = cli("read", llama, "--chat", "--prompt", "Hi", "--max-new-tokens", 2, "--segments", "turns")
    assert done.code == 0, done.err
    assert "the template" in done.out
    assert "first token <|im_start|>" in done.out


def test_a_conversation_is_read_from_a_file_or_standard_input(cli, llama, tmp_path):
    path, asked = tmp_path / "chat.json", ("read", llama, "--max-new-tokens", 3, "--json")
    path.write_text(json.dumps(CHAT), encoding="utf-8")
    wanted = printed(regard.read(llama, messages=CHAT, max_new_tokens=3))
    assert json.loads(cli(*asked, "--messages", path).out) == wanted
    assert json.loads(cli(*asked, "--messages", "-", given=path.read_bytes()).out) == wanted
    system = cli(*asked, "--system", "Be brief.", "--prompt", "東京?")
    assert json.loads(system.out) == printed(regard.read(llama, messages=CHAT[:2], max_new_tokens=3))


def test_of_a_conversation_the_template_is_folded_away(cli, llama, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    # rich keeps a style's codes as the first terminal has them, for all tests of a process
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm")
    (tmp_path / "chat.json").write_text(json.dumps(CHAT), encoding="utf-8")
    done = cli("read", llama, "--messages", tmp_path / "chat.json", "--max-new-tokens", 3, "--segments", "turns")
    assert done.code == 0, done.err
    shown = re.sub(r"\x1b\[[\d;]*m", "", done.out)
    assert re.search(r"system: Be brief\. *\n user: 東京\? *\n assistant: Yes\. *\n user: Who\? *\n assistant:", shown)
    assert re.search(r"the template +\d", shown)
    assert "assistant: Yes." in shown.partition("Strongest turns of the prompt")[2]
    # the first token has its own line
    assert shown.count("<|im_") == shown.count("first token <|im_start|>") == 1


def test_one_token_layer_and_head_are_shown_alone(cli, llama):
    asked = ["read", llama, "--prompt", PROMPT, "--max-new-tokens", 4]
    shown = {
        option: cli(*asked, *option.split()).out for option in ("", "--token 0", "--token -1", "--layer 0", "--head 1")
    }
    assert len(set(shown.values())) == len(shown)
    assert "layer 0, mean of its heads" in shown["--layer 0"]
    assert "head 1, mean of 3 layers" in shown["--head 1"]


def test_an_encoder_reads_a_text_whole(cli, bert):
    done = cli("read", bert, "--text", "A cat.", "--max-new-tokens", 9)
    assert done.code == 0, done.err
    assert "What 6 tokens of the text looked at" in done.out
    assert "read: 1 encoder layers" in done.out


def test_an_encoder_decoder_shows_an_alignment(cli, t5, tmp_path):
    done = cli("read", t5, "--source", "A cat", "--target", "ein Tier", "--out", tmp_path / "a.png")
    assert done.code == 0, done.err
    assert "weight at least" in done.out
    assert (tmp_path / "a.png").stat().st_size


def test_sources_of_a_translation(cli, t5, tmp_path):
    given = ["--source", "A cat. A dog.", "--target", "ein Tier"]
    done = cli("sources", t5, *given, "--curves", tmp_path / "curves.png")
    assert done.code == 0, done.err
    assert "ein Tier" in done.out
    assert (tmp_path / "curves.png").stat().st_size
    found = json.loads(cli("sources", t5, *given, "--json").out)
    assert found["method"] == "removal"
    assert sorted(each["text"] for each in found["sources"]) == ["A cat.", "A dog."]
    model = regard.load(t5)
    ids = [model.tokenizer.encode(text) for text in ("A cat. A dog.", " A dog.")]
    target = torch.tensor([model.tokenizer.encode("ein Tier")])
    with torch.no_grad():
        logits = [
            model.module.model(
                input_ids=torch.tensor([each]), decoder_input_ids=torch.cat([torch.tensor([[0]]), target[:, :-1]], 1)
            ).logits
            for each in ids
        ]
    before, after = (each[0].double().log_softmax(-1).gather(1, target.T).sum().item() for each in logits)
    effects = {each["text"]: each["effect"] for each in found["sources"]}
    assert effects["A cat."] == pytest.approx(after - before, abs=1e-4)
    for wrong, why in (
        (["--prompt", "a"], "takes a source"),
        (["--source", "a", "--answer", "b"], "--answer go with a prompt"),
        (["--prompt", "a", "--target", "b"], "--target goes with --source"),
    ):
        done = cli("sources", t5, *wrong)
        assert done.code == 1
        assert why in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of FILES, --prompt, --prompt-file, --messages, --text, --text-file and --source"),
        (["--prompt", "a", "--messages", "b"], "not --prompt and --messages"),
        (["--prompt", "a", "--text", "b"], "not --prompt and --text"),
        (["--prompt", "a", "--prompt-file", "b"], "not --prompt and --prompt-file"),
        (["--prompt", "a", "--source", "b"], "not --prompt and --source"),
        (["--prompt", "a", "--rows", "some"], "'some' is no list of positions"),
        (["--prompt", "a", "--rows", "1:2:3"], "'1:2:3' is no list of positions"),
        (["--prompt", "a", "--layers", "2:"], "'2:' is no range of layers"),
        (["--prompt", "a", "--top-k", "0"], "--top-k must be at least 1, not 0"),
        (["--prompt", "a", "--statistics", "entropi"], "did you mean 'entropy'?"),
        (["--prompt", "a", "--segments", "words"], "words"),
        (["--prompt", "--chatty"], "there is no option --chatty"),
    ],
)
def test_what_is_no_call_is_usage(cli, llama, arguments, message):
    done = cli("read", llama, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", " \n"], "the prompt is empty"),
        (["--text", ""], "the text is empty"),
        (["--source", "a"], "takes a prompt or a text, not a source"),
        (["--prompt", "a", "--target", "b"], "--target goes with --source"),
        (["--text", "a", "--chat"], "chat goes with a prompt"),
        (["--text", "a", "--system", "b"], "--system goes with a prompt"),
        (["--prompt", "a", "--system", " "], "--system and prompt: message 1 (system) is empty"),
        (["--messages", "none.json"], "none.json: cannot be read: No such file"),
        (["--messages", "-"], "standard input: not UTF-8 at byte 1"),
        (["--prompt", "a" * 159], "the model takes at most 160; ask for at most 1 new ones or shorten it"),
        (["--prompt", "a" * 161], "the model takes at most 160; shorten it"),
        (["--prompt", "a", "--num-beams", "2"], "leave out --num-beams"),
        (["--prompt", "a", "--layers", "7"], "there is no layer 7; the model has layers 0 to 2"),
        (["--prompt", "a", "--layer", "7"], "there is no decoder layer 7"),
        (["--prompt", "a", "--head", "7"], "there is no head 7"),
        (["--prompt", "a", "--token", "9", "--max-new-tokens", "2"], "there is no token 9"),
        (["--prompt", "a", "--token", "never", "--max-new-tokens", "2"], "'never' was not written"),
        (["--prompt", "a", "--out", "a.csv"], "a.csv: a reading is saved as .safetensors"),
        (["--prompt-file", "none.txt"], "none.txt: cannot be read: No such file"),
        (["--prompt-file", "."], ".: cannot be read: Is a directory"),
        (["--text-file", "-"], "standard input: not UTF-8 at byte 1; save the file as UTF-8"),
    ],
)
def test_what_cannot_be_read_is_told_and_nothing_is_written(cli, llama, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = cli("read", llama, *arguments, *([] if "a.csv" in arguments else ["--out", "a.json"]), given=b"a\xff")
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"role": "user",\n "content": }]', "chat.json: not JSON at line 2, column 13"),
        ("", "chat.json: not JSON at line 1, column 1"),
        ("[" * 100_000, "chat.json: nested too deeply"),
        ('{"role": "user"}', "chat.json: give a list of messages"),
        ("[]", "chat.json: there is no message"),
        ('[{"role": "user", "content": "a"}, {"role": "user"}]', "chat.json: message 2 (user) has no content"),
    ],
)
@pytest.mark.parametrize("verb", ["read", "generate"])
def test_what_is_no_file_of_messages_is_told(cli, llama, tmp_path, verb, text, says):
    path = tmp_path / "chat.json"
    path.write_text(text, encoding="utf-8")
    done = cli(verb, llama, "--messages", path)
    assert (done.code, done.out) == (1, "")
    assert says in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "one"], "is a translator; give it a --source"),
        (["--text", "one"], "is a translator; give it a --source"),
        (["--source", "one", "--rows", "last", "--top-k", "3"], "read whole; leave out --rows, --top-k"),
        (["--source", "one", "--target", "un", "--token", "0"], "a translation is shown whole"),
    ],
)
def test_what_is_for_language_models_is_refused_for_a_run(cli, runs, arguments, message):
    done = cli("read", runs["transformer"], *arguments)
    assert (done.code, done.out) == (1, "")
    assert message in done.err


def test_an_encoder_goes_on_from_no_prompt(cli, bert):
    done = cli("read", bert, "--prompt", "A cat.")
    assert done.code == 1
    assert "bert writes nothing; give it a text" in done.err

"""Tokenizers of other programs, taken over: they cut texts as their own programs do, and only their ids are others."""

import io
import json

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from regard.data.batch import EOS, SPECIAL_TOKENS, UNKNOWN
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError

LINES = [
    "The quick brown fox (really) jumps over the lazy dog's back, twice.",
    "Le vif renard brun saute par-dessus le chien paresseux — deux fois !",
    "敏捷的棕色狐狸跳过懒狗。 すばやい キツネ",
    "ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
] * 9
PROBES = [*LINES[:4], "the  fox jumps ", "狐狸 fox 🦊 x", "ﬁne １２３", "a\tb", "", "abc <num> the <num>x"]
SENTENCEPIECE = {
    "unigram": {"model_type": "unigram"},
    "bpe": {"model_type": "bpe"},
    "unigram with bytes": {"model_type": "unigram", "byte_fallback": True, "vocab_size": 400},
    "bpe with bytes": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 420},
    "characters": {"model_type": "char"},
    "bpe with a symbol of the user's": {"model_type": "bpe", "user_defined_symbols": ["<num>"]},
    "unigram with a symbol of the user's": {"model_type": "unigram", "user_defined_symbols": ["<num>"]},
    "spaces as they are": {
        "model_type": "unigram",
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
    "no space before": {"model_type": "bpe", "add_dummy_prefix": False, "normalization_rule_name": "nfkc_cf"},
    "tokens beyond words": {"model_type": "unigram", "split_by_whitespace": False},
}


def sentencepiece_model(**settings):
    """The bytes of a SentencePiece model, and the processor that is the witness."""
    spm = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=written,
        **{"vocab_size": 150, "hard_vocab_limit": False, "minloglevel": 2, **settings},
    )
    return written.getvalue(), spm.SentencePieceProcessor(model_proto=written.getvalue())


def spelt(tokenizer, ids):
    tokens = {id: token for token, id in tokenizer.backend.get_vocab().items()}
    return [tokens[id] for id in ids]


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_a_sentencepiece_model_cuts_and_writes_as_sentencepiece_does(name, tmp_path):
    data, witness = sentencepiece_model(**SENTENCEPIECE[name])
    (tmp_path / "my.model").write_bytes(data)
    made = Tokenizer.take_over(tmp_path / "my.model")
    made.save(tmp_path / "tokenizer.json")
    for tokenizer in (made, Tokenizer.load(tmp_path / "tokenizer.json")):
        assert len(tokenizer) == witness.get_piece_size() + 1
        for text in PROBES:
            ids = tokenizer.encode(text)
            assert spelt(tokenizer, ids) == [witness.id_to_piece(id) for id in witness.encode(text)]
            assert tokenizer.decode(ids) == witness.decode(witness.encode(text)).replace(" ⁇ ", " ⁇")
            covered = {place for token in tokenizer.tokens(text) for place in range(token.start, token.end)}
            assert {place for place, letter in enumerate(text) if letter.isalnum()} <= covered
        assert not {*range(len(SPECIAL_TOKENS))} - {UNKNOWN} & {*tokenizer.encode("<s> a</s><pad><unk>")}


def test_a_sentencepiece_model_of_words_knows_its_words(tmp_path):
    data, _ = sentencepiece_model(model_type="word")
    (tmp_path / "my.model").write_bytes(data)
    tokenizer = Tokenizer.take_over(tmp_path / "my.model")
    assert tokenizer.decode(tokenizer.encode("zwei drei unheard fox")) == "zwei drei ⁇ fox"
    assert tokenizer.kind == "word"


def hugging_face(kind):
    """A tokenizer as people train one with Hugging Face's library, whose special tokens have other names and places."""
    specials = ["[PAD]", "[UNK]", "<|end|>"]
    if kind == "bytes":
        made = tokenizers.Tokenizer(models.BPE())
        made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
        # without the alphabet, so that most bytes have no token
        trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
    else:
        model = models.Unigram() if kind == "unigram" else models.BPE(unk_token="[UNK]", dropout=0.5)
        made = tokenizers.Tokenizer(model)
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = (
            trainers.UnigramTrainer(vocab_size=120, special_tokens=specials, unk_token="[UNK]", show_progress=False)
            if kind == "unigram"
            else trainers.BpeTrainer(vocab_size=150, special_tokens=specials, show_progress=False)
        )
    made.train_from_iterator(LINES, trainer)
    made.add_tokens(["<num>"])
    made.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 2)])
    made.enable_truncation(3)
    return made


@pytest.mark.parametrize("kind", ["bytes", "unigram", "bpe"])
def test_a_tokenizer_of_hugging_face_cuts_as_it_did_without_its_special_tokens_or_its_limit(kind, tmp_path):
    theirs = hugging_face(kind)
    theirs.save(str(tmp_path / "theirs.json"))
    made = Tokenizer.take_over(tmp_path / "theirs.json")
    made.save(tmp_path / "tokenizer.json")
    theirs.no_truncation()
    if kind == "bpe":
        theirs.model.dropout = None
    for tokenizer in (made, Tokenizer.load(tmp_path / "tokenizer.json")):
        assert spelt(tokenizer, range(len(SPECIAL_TOKENS))) == list(SPECIAL_TOKENS)
        assert not {"[PAD]", "[UNK]", "<|end|>"} & tokenizer.backend.get_vocab().keys()
        for text in PROBES[:4] + PROBES[9:]:
            tokens = theirs.encode(text, add_special_tokens=False).tokens
            assert spelt(tokenizer, tokenizer.encode(text)) == [{"[UNK]": "<unk>"}.get(each, each) for each in tokens]
        # what it had no token for was lost; a byte is none any more
        text = "fox 🦊 <|end|> [PAD] </s>"
        if kind == "bytes":
            assert tokenizer.decode(tokenizer.encode(text)) == text.lower()
        assert not {0, 1, EOS} & {*tokenizer.encode(text)}


def test_a_tokenizer_of_another_run_is_taken_over_as_it_is(tmp_path):
    own = Tokenizer.train(LINES, kind="bpe", vocab_size=300, form="NFC")
    own.save(tmp_path / "tokenizer.json")
    again = Tokenizer.take_over(tmp_path / "tokenizer.json", form="NFC")
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_tokenizer_made_before_goes_on_cutting_as_its_file_says(tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer.train(["สวัสดี hi"], kind="word", vocab_size=20).save(path)
    assert [token.text for token in Tokenizer.load(path).tokens("สวัสดี hi")] == ["", *["ส", "วั", "ส", "ดี"], " hi"]
    stored = json.loads(path.read_text())
    # as word tokenizers once took texts without spaces
    stored["pre_tokenizer"]["pattern"]["Regex"] = r" ?[\p{L}\p{M}\p{N}]+| ?[^\s\p{L}\p{M}\p{N}]|\s"
    path.write_text(json.dumps(stored))
    assert [token.text for token in Tokenizer.load(path).tokens("สวัสดี hi")] == ["สวัสดี", " hi"]


def test_what_cannot_write_spaces_back_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    # as in the library's quick tour
    tour = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    tour.pre_tokenizer = pre_tokenizers.Whitespace()
    tour.train_from_iterator(LINES, trainers.BpeTrainer(special_tokens=["[UNK]"], vocab_size=100, show_progress=False))
    tour.save(str(path))
    with pytest.raises(RegardError, match=r"tokenizer\.json: its decoder \(none\) cannot put the spaces .* ByteLevel"):
        Tokenizer.take_over(path)
    bert = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    bert.save(str(path))
    with pytest.raises(
        RegardError, match=r"'WordPiece', whose tokens do not say where .* takes BPE, Unigram, WordLevel"
    ):
        Tokenizer.take_over(path)


def field(number, data):
    """A field of a protocol buffer that holds bytes."""
    return bytes([number << 3 | 2, len(data)]) + data


UNKNOWN_PIECE = field(1, field(1, b"<unk>") + b"\x18\x02")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"The words of a novel, called my.model.\n" * 9,
        b"PK\x03\x04 a zip",
        b"\x80\x04\x95 a pickle",
        b"\x0a\xff\xff\xff\xff\x7f cut off",
        b"\xff" * 40,
        field(1, field(1, b"a")),
        UNKNOWN_PIECE * 2,
        UNKNOWN_PIECE + field(1, field(1, b"\xff")),
        UNKNOWN_PIECE + field(1, field(1, b"a") + b"\x15\x00\x00\xc0\x7f"),
        UNKNOWN_PIECE + field(1, b"\x08\x01"),
        UNKNOWN_PIECE + field(3, field(2, b"\xff\xff\xff\xff no trie")),
        b"\0" * 100,
    ],
)
def test_a_file_that_is_no_sentencepiece_model_is_refused_by_name(data, tmp_path):
    path = tmp_path / "my.model"
    path.write_bytes(data)
    with pytest.raises(
        RegardError, match=r"my\.model: not a (SentencePiece model|tokenizer that can be used) \(.*\); "
    ):
        Tokenizer.take_over(path)


def test_a_broken_file_of_hugging_face_is_refused_by_name(tmp_path):
    whole = json.loads(hugging_face("unigram").to_str())
    path = tmp_path / "their tokenizer.json"

    def refused(stored):
        path.write_text(stored if isinstance(stored, str) else json.dumps(stored))
        with pytest.raises(RegardError, match=r"their tokenizer\.json: "):
            Tokenizer.take_over(path)

    for text in ("", "{", "[]", '{"model": 1}', "[" * 10**5, "the words of a novel"):
        refused(text)
    vocabulary = whole["model"]["vocab"]
    for model in (
        {"vocab": [["a", 1.0], ["a", 2.0]]},
        {"vocab": [["a", "b"]]},
        {"vocab": []},
        {"vocab": {"a": 0}},
        {"unk_id": len(vocabulary)},
        {"type": "Another"},
    ):
        refused(whole | {"model": whole["model"] | model})
    for part in (
        {"normalizer": {"type": "Lost"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
        {"decoder": {"type": "CTC"}},
        {"added_tokens": [{"id": "a"}]},
    ):
        refused(whole | part)
    with pytest.raises(RegardError, match="there is no such file"):
        Tokenizer.take_over(tmp_path / "none.json")
    with pytest.raises(RegardError, match="cannot be read: Is a directory"):
        Tokenizer.take_over(tmp_path)

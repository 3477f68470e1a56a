"""A language model's text begins with its prefix to the letter, and slides on past the context."""

import logging

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

import regard
from regard.generation.spelling import NEVER_SPELT, Prefix
from regard.language_model.pieces import spelling_of

transformers = pytest.importorskip("transformers")

CONTEXT = 24
SPECIAL = ["<s>", "</s>"]
TEXTS = ["the cat and the hat", "a cab, the 1 bath", "日本の猫 é", "chat th"]


def byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "a"), ("Ġ", "ca"), ("Ġca", "t"), ("a", "t")]
    tokens = [*SPECIAL, *alphabet, *("".join(pair) for pair in merged)]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merged))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def with_word_marks():
    """As SentencePiece: a mark before each word, which decoding drops from the first, and bytes for what is unknown."""
    letters = sorted(set("".join(TEXTS[:2]) + "▁") - {" "})
    merged = [("t", "h"), ("th", "e"), ("▁", "the"), ("c", "a"), ("▁", "ca"), ("▁ca", "t"), ("a", "t")]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *("".join(pair) for pair in merged)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocabulary, merged, byte_fallback=True, unk_token="<0x00>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


TOKENIZERS = {"byte-level": byte_level, "word marks": with_word_marks}


@pytest.fixture(scope="module", params=TOKENIZERS)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    backend = TOKENIZERS[request.param]()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=len(backend.get_vocab()),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=1,
    )
    module = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    module.save_pretrained(path)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=SPECIAL[1])
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=["regard", "transformers"])
def model(request, folder):
    return regard.load(folder, library=request.param, dtype="float64")


def test_pieces_of_tokens_join_to_the_text_that_the_tokenizer_decodes(model):
    spelling = spelling_of(model.tokenizer, model.name)
    for text in TEXTS:
        ids = model.encode(text)[0]
        assert spelling.text(ids).decode() == text == model.decode(ids)
    for seed in range(30):
        ids = torch.randint(2, len(spelling.pieces), (5,), generator=torch.Generator().manual_seed(seed)).tolist()
        data = spelling.text(ids)
        if data.decode("utf-8", "replace").encode() == data:
            assert model.decode(ids) == data.decode()
    assert [spelling.pieces[id] for id in (0, 1)] == [b"", b""]


@pytest.mark.parametrize("settings", [{}, {"temperature": 2.0, "seed": 3, "repetition_penalty": 1.2}], ids=str)
def test_a_text_begins_with_its_prefix_to_the_letter_and_then_has_as_many_tokens_as_are_asked_for(model, settings):
    spelling = spelling_of(model.tokenizer, model.name)
    for prefix in [" th", "the ca", "日", "é a ", "x"]:
        for n in (1, 3):
            found = model.generate("a cat", n=n, prefix=prefix, max_new_tokens=4, **settings)
            for each in found if n > 1 else [found]:
                assert each.text.startswith(prefix)
                counts = range(len(each.tokens) + 1)
                spelt = next(i for i in counts if spelling.text(each.tokens[:i]).startswith(prefix.encode()))
                assert len(each.tokens) == spelt + 4 or each.finished


@torch.no_grad()
def test_the_tokens_that_spell_a_prefix_are_the_most_likely_that_agree_with_the_rest_of_it(model):
    spelling = spelling_of(model.tokenizer, model.name)
    prompt, prefix = "a bath", " the cat "
    found = model.generate(prompt, prefix=prefix, max_new_tokens=1)
    past, written, target = model.encode(prompt)[0], [], prefix.encode()
    while not spelling.text(written).startswith(target):
        (logits,) = model.adapter.logits(torch.tensor([[*past, *written]]), 99)
        texts = [spelling.text([*written, token]) for token in range(len(spelling.pieces))]
        agreeing = [
            token
            for token, text in enumerate(texts)
            if spelling.pieces[token] and (text.startswith(target) or target.startswith(text))
        ]
        assert len(agreeing) > 1 or len(written) > 1
        written.append(max(agreeing, key=lambda token: float(logits[-1, token])))
    assert found.tokens[: len(written)] == written


def test_the_beginning_of_its_own_text_gives_that_text_again(model):
    for prompt in TEXTS:
        own = model.generate(prompt, max_new_tokens=9)
        if "\ufffd" in own.text:
            continue
        for end in range(1, len(own.text)):
            again = model.generate(prompt, prefix=own.text[:end], max_new_tokens=9)
            assert again.tokens[: len(own.tokens)] == own.tokens


def test_prefixes_that_cannot_be_are_told(model, folder):
    with pytest.raises(regard.RegardError, match="the prefix holds 'the', at which the text would end"):
        model.generate("a", prefix="the cat", stop=["the"])
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    spaced = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
    with pytest.raises(regard.RegardError, match="its tokenizer decodes them by code of its own; leave out the prefix"):
        spelling_of(spaced, "spaced")
    words.decoder = decoders.WordPiece()
    with pytest.raises(regard.RegardError, match="decodes them by WordPiece"):
        spelling_of(transformers.PreTrainedTokenizerFast(tokenizer_object=words), "spaced")
    words.decoder = decoders.Fuse()
    spelling = spelling_of(transformers.PreTrainedTokenizerFast(tokenizer_object=words), "fused")
    assert Prefix(spelling, "abba").need == 4
    assert Prefix(spelling, "abc").need == NEVER_SPELT


@torch.no_grad()
def slid(model, prompt, count):
    """Greedy text by one run over the window for each token: full, it keeps its last half."""
    window, written = list(prompt), []
    for _ in range(count):
        if len(window) == CONTEXT:
            window = window[-(CONTEXT // 2) :]
        (logits,) = model.adapter.logits(torch.tensor([window]), 99)
        written.append(int(logits[-1].argmax()))
        window.append(written[-1])
    return written


@pytest.fixture(scope="module")
def endless(model):
    """No token ends its texts."""
    ends, model.ends = model.ends, frozenset()
    yield model
    model.ends = ends


def test_a_text_goes_on_past_the_context_from_its_last_half(endless, caplog):
    for prompt in TEXTS[:2]:
        ids = endless.encode(prompt)[0]
        with caplog.at_level(logging.WARNING, "regard"):
            found = endless.generate(prompt, max_new_tokens=70)
        assert found.tokens == slid(endless, ids, 70)
        assert [record.message for record in caplog.records] == [
            f"prompt and text fill the model's context of {CONTEXT} tokens: the text goes on from the last "
            f"{CONTEXT // 2} of them, and so each time they are filled"
        ]
        caplog.clear()
    room = CONTEXT - len(endless.encode("a")[0])
    endless.generate("a", max_new_tokens=room)
    assert not caplog.records


def test_texts_that_slide_do_not_depend_on_their_batch(endless):
    alone = [endless.generate(text, n=2, max_new_tokens=40, temperature=1.5, seed=4) for text in TEXTS[:1]]
    together = endless.generate(TEXTS, n=2, max_new_tokens=40, temperature=1.5, seed=4)
    assert [each.tokens for each in together[0]] == [each.tokens for each in alone[0]]
    greedy = endless.generate(TEXTS, max_new_tokens=40)
    assert [each.tokens for each in greedy] == [slid(endless, endless.encode(text)[0], 40) for text in TEXTS]


@pytest.mark.parametrize("how", [{"read": True}, {"past_context": "end"}], ids=str)
def test_a_text_that_is_read_or_shall_end_does_so_at_the_context_and_says_it(endless, caplog, how):
    room = CONTEXT - len(endless.encode("a cat")[0])
    with caplog.at_level(logging.WARNING, "regard"):
        found = endless.generate("a cat", max_new_tokens=70, **how)
    assert (len(found.tokens), found.finished) == (room, False)
    assert [record.message for record in caplog.records] == [
        f"prompt and text fill the model's context of {CONTEXT} tokens: the text ends there"
    ]
    reading = endless.read_written("a cat", found)
    assert len(reading.queries("decoder")) == room


def test_a_text_that_outgrew_the_context_is_not_read(endless):
    found = endless.generate("a cat", max_new_tokens=70)
    with pytest.raises(regard.RegardError, match=f"70 new ones may follow, the model takes at most {CONTEXT}"):
        endless.read_written("a cat", found)


def test_a_prefix_may_outgrow_the_context_where_the_text_slides(endless):
    prefix = " the cat" * 12
    assert endless.generate("a", prefix=prefix, max_new_tokens=2).text.startswith(prefix)
    with pytest.raises(regard.RegardError, match=f"its prefix .* and the model takes {CONTEXT}, what it"):
        endless.generate("a", prefix=prefix, max_new_tokens=2, past_context="end")

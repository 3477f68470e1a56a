"""Pretrained translators: what transformers computes with them, by the calls of Regard's own; tiny random ones."""

import copy
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.pretrained_translators import LANGUAGES, MAKERS, SOURCES, TARGETS

import regard
from regard.data.batch import collate
from regard.data.formats import Pair
from regard.data.prepare import TokenizedCorpus, prepare, tokenize
from regard.errors import RegardError
from regard.evaluation.likelihood import likelihood
from regard.generation.decoding import Decoding
from regard.generation.translate import translate_tokens

# more than the sources' own, of other lengths
NEW = 10


@pytest.fixture(scope="module", params=MAKERS)
def translator(request, folder_of):
    return regard.load(folder_of(request.param), **LANGUAGES[request.param])


def theirs(translator):
    """The module and the tokenizer of transformers."""
    return translator.module.model, translator.tokenizer.backend


def encoded(translator, **texts):
    """A text as transformers' tokenizer gives it to the model; Marian's tag is typed before it."""
    _, backend = theirs(translator)
    if "text" in texts and (codes := getattr(backend, "supported_language_codes", None)):
        texts["text"] = [f"{codes[0]} {text}" for text in texts["text"]]
    return backend(**texts, padding=True, return_tensors="pt")


def batch_of(translator, sources=SOURCES, targets=TARGETS):
    tokenizer = translator.tokenizer
    return collate(tokenizer.encode_batch(sources), tokenizer.target.encode_batch(targets), tokenizer.frames)


def test_losses_are_those_of_transformers(translator):
    model, backend = theirs(translator)
    found = encoded(translator, text=SOURCES, text_target=TARGETS)
    labels = found["labels"].masked_fill(found["labels"] == backend.pad_token_id, -100)
    with torch.no_grad():
        wanted = model(input_ids=found["input_ids"], attention_mask=found["attention_mask"], labels=labels).loss
        batch = batch_of(translator)
        logits = translator.module(batch).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-1)
    assert float(loss) == pytest.approx(float(wanted), abs=1e-5)


def test_greedy_translations_are_those_of_transformers(translator):
    model, _ = theirs(translator)
    frames = translator.tokenizer.frames
    # a byte-level model with random weights writes bytes that are no text, which Regard's own decoding does not
    found = translate_tokens(
        translator.module,
        translator.tokenizer.encode_batch(SOURCES),
        max_length=translator.max_length,
        decoding=Decoding(max_new_tokens=NEW),
        frames=frames,
    )
    tag = {"forced_bos_token_id": frames.target.before[-1]} if frames.given else {}
    for source, (hypothesis,) in zip(SOURCES, found, strict=True):
        inputs = encoded(translator, text=[source])
        with torch.no_grad():
            written = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                num_beams=1,
                do_sample=False,
                max_new_tokens=NEW + frames.given,
                **tag,
            )[0].tolist()
        assert tuple(written[: len(frames.target.before)]) == frames.target.before
        written = written[len(frames.target.before) :]
        ours = [*hypothesis.tokens, *([frames.end] if hypothesis.finished else [])]
        # the last one may be the end that transformers forces there
        assert ours[: NEW - 1] == written[: NEW - 1]


def test_a_sentence_is_translated_the_same_in_any_batch(translator):
    for settings in ({}, {"num_beams": 3, "n_best": 2}):
        together = translator.translate_n_best(SOURCES, max_new_tokens=NEW, **settings)
        for source, wanted in zip(SOURCES, together, strict=True):
            (alone,) = translator.translate_n_best([source], max_new_tokens=NEW, **settings)
            assert [each.tokens for each in alone] == [each.tokens for each in wanted]
            assert [each.score for each in alone] == pytest.approx([each.score for each in wanted], abs=1e-5)


def test_what_is_searched_has_the_probability_that_the_whole_model_gives_it(translator):
    frames = translator.tokenizer.frames
    for (best, *_), source in zip(
        translator.translate_n_best(SOURCES, num_beams=3, max_new_tokens=NEW), SOURCES, strict=True
    ):
        batch = collate([translator.tokenizer.encode(source)], [best.tokens], frames)
        with torch.no_grad():
            logits = translator.module(batch).logits[0].log_softmax(-1)
        chosen = logits.gather(1, batch.labels[0, :, None])[:, 0]
        written = len(best.tokens) + best.finished
        assert best.log_probability == pytest.approx(
            float(chosen[frames.given : frames.given + written].sum()), abs=1e-4
        )
        assert float(best.score) == pytest.approx(best.log_probability / written, abs=1e-5)


def after_prefill(translator, tokens):
    """The rows of a target from what a search gives first, after what `encode` has given the decoder."""
    return tokens[:, translator.tokenizer.frames.given :]


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_logits_and_cross_attention_step_by_step_are_those_of_the_whole_target(translator):
    batch, module = batch_of(translator), translator.module
    whole = module(batch, read=True)
    cross = [map for map in whole.attention if map.kind == "cross"]
    cache = module.encode(batch.source, batch.source_lengths)
    given = translator.tokenizer.frames.given
    for step, tokens in enumerate(after_prefill(translator, batch.inputs).T):
        # the second beam goes the same way as the first
        output = module.decode_step(tokens[:, None].expand(-1, 2 if step else 1), cache, read=True)
        assert [map.layer for map in output.attention] == [map.layer for map in cross]
        for beam in range(output.logits.shape[1]):
            assert_close(output.logits[:, beam], whole.logits[:, given + step])
            for ours, theirs in zip(output.attention, cross, strict=True):
                assert_close(ours.weights[:, :, beam], theirs.weights[:, :, given + step])
                assert_close(ours.context[:, :, beam], theirs.context[:, :, given + step])
        cache.select(torch.arange(4), torch.tensor([[0, 0]] * 4))


@torch.no_grad()
def test_beams_of_a_sentence_go_their_own_ways(translator):
    module, frames = translator.module, translator.tokenizer.frames
    batch = batch_of(translator)
    cache = module.encode(batch.source, batch.source_lengths)
    module.decode_step(torch.full((4, 1), frames.start), cache)
    # three beams a sentence, then sentences 0 and 3 leave, and the beams of the others are told apart by their past
    cache.select(torch.arange(4), torch.zeros(4, 3, dtype=torch.int64))
    module.decode_step(torch.tensor([[14, 15, 16]] * 4), cache)
    cache.select(torch.tensor([1, 2]), torch.tensor([[2, 0], [1, 1]]))
    logits = module.decode_step(torch.tensor([[17, 18], [19, 20]]), cache).logits
    pasts = [[16, 17], [14, 18]], [[15, 19], [15, 20]]
    for row, sentence in enumerate([1, 2]):
        source = translator.tokenizer.encode(SOURCES[sentence])
        for beam in range(2):
            alone = module(collate([source], [pasts[row][beam]], frames)).logits[0, frames.given + 2]
            assert_close(logits[row, beam], alone)


@torch.no_grad()
def test_padding_and_later_tokens_change_nothing(translator):
    batch, module = batch_of(translator), translator.module
    logits = module(batch).logits
    padding = torch.arange(batch.source.shape[1]) >= batch.source_lengths[:, None]
    assert padding.any()
    poisoned = replace(batch, source=batch.source.masked_fill(padding, 20))
    assert_close(module(poisoned).logits[batch.label_mask], logits[batch.label_mask])
    later = batch.target.clone()
    later[:, 5] = 21
    assert_close(module(replace(batch, target=later)).logits[:, :5], logits[:, :5])
    assert not torch.allclose(module(replace(batch, target=later)).logits[:, 5], logits[:, 5])


def is_text(piece):
    return piece.decode(errors="replace").encode() == piece


def test_a_beam_search_that_keeps_all_finds_the_likeliest_of_all(translator):
    tokenizer, frames = translator.tokenizer, translator.tokenizer.frames
    tokens = [
        id
        for id, piece in enumerate(tokenizer.target.pieces)
        if is_text(piece) and id not in (*frames.never, frames.end)
    ]
    # every translation of no token and of one
    batch = collate([tokenizer.encode(SOURCES[0])] * (len(tokens) + 1), [[], *([id] for id in tokens)], frames)
    with torch.no_grad():
        logits = translator.module(batch).logits[:, frames.given :].double()
    steps = logits.log_softmax(-1)
    ended = [float(steps[0, 0, frames.end])]
    ended += [float(steps[row, 0, id] + steps[row, 1, frames.end]) for row, id in enumerate(tokens, 1)]
    (found,) = translator.translate_n_best(
        [SOURCES[0]], num_beams=len(tokenizer.target), max_new_tokens=2, length_penalty=0.0
    )
    assert found[0].finished
    assert found[0].log_probability == pytest.approx(max(ended), abs=1e-4)


def test_scores_are_of_the_text_and_its_end(translator):
    frames = translator.tokenizer.frames
    found = translator.score(SOURCES, TARGETS)
    for each, source, target in zip(found, SOURCES, TARGETS, strict=True):
        batch = batch_of(translator, [source], [target])
        with torch.no_grad():
            chosen = translator.module(batch).logits[0].log_softmax(-1).gather(1, batch.labels[0, :, None])[:, 0]
        own = chosen[frames.given : frames.given + len(each.tokens) + 1]
        assert each.log_probability == pytest.approx(float(own.sum()), abs=1e-4)
        assert each.score == pytest.approx(float(own.mean()), abs=1e-5)


def test_weights_are_those_of_the_plain_model_in_float64(translator):
    model, _ = theirs(translator)
    batch = batch_of(translator)
    with torch.no_grad():
        output = translator.module(batch, read=True)
        assert torch.equal(output.logits, translator.module(batch).logits)
        witness = copy.deepcopy(model).double()
        witness.set_attn_implementation("eager")
        mask = torch.arange(batch.source.shape[1]) < batch.source_lengths[:, None]
        found = witness(
            input_ids=batch.source,
            attention_mask=mask.long(),
            decoder_input_ids=batch.inputs,
            output_attentions=True,
            use_cache=False,
        )
    kinds = {
        "encoder": found.encoder_attentions,
        "decoder": found.decoder_attentions,
        "cross": found.cross_attentions,
    }
    assert sorted((map.kind, map.layer) for map in output.attention) == sorted(
        (kind, layer) for kind, maps in kinds.items() for layer in range(len(maps))
    )
    for map in output.attention:
        weights = kinds[map.kind][map.layer]
        torch.testing.assert_close(map.weights.double(), weights, atol=1e-5, rtol=0)
        torch.testing.assert_close(map.weights @ map.value, map.context, atol=1e-4, rtol=1e-4)


def test_a_reading_has_the_weights_of_the_replay_with_every_name(translator):
    reading = translator.read(SOURCES[1], TARGETS[1], statistics=["entropy"])
    assert not reading.refused
    assert reading.kinds == ["encoder", "decoder", "cross"]
    with torch.no_grad():
        maps = translator.module(batch_of(translator, SOURCES[1:2], TARGETS[1:2]), read=True).attention
    for map in maps:
        np.testing.assert_allclose(reading.weights(map.kind, map.layer), map.weights[0], atol=1e-5)
    frames, tokenizer = translator.tokenizer.frames, translator.tokenizer
    source, target = reading.sequences["source"], reading.sequences["target"]
    assert (source.text, target.text) == (SOURCES[1], TARGETS[1])
    assert [token.id for token in source.tokens] == frames.source(tokenizer.encode(SOURCES[1]))
    assert [token.id for token in target.tokens] == frames.target(tokenizer.target.encode(TARGETS[1]))
    assert source.words == SOURCES[1].split()
    (table,) = translator.alignments(SOURCES[1:2], TARGETS[1:2])
    np.testing.assert_allclose(table, reading.alignment(), atol=1e-6)
    # of a part of the rows the words that they wrote
    first = translator.read(SOURCES[1], TARGETS[1], rows=slice(0, frames.given + 1)).alignment()
    assert not first[1:].any()


def test_sources_are_the_words_without_which_the_model_says_otherwise(translator):
    source, target = "the cat sleeps", "le chat dort"
    found = translator.sources(source, target, grain="words")
    tokenizer, frames = translator.tokenizer, translator.tokenizer.frames

    def log_probability(ids):
        batch = collate([ids], [tokenizer.target.encode(target)], frames)
        with torch.no_grad():
            chosen = translator.module(batch).logits[0].double().log_softmax(-1).gather(1, batch.labels[0, :, None])
        return float(chosen[frames.given :][: len(tokenizer.target.encode(target))].sum())

    tokens = tokenizer.tokens(source)
    whole = log_probability([token.id for token in tokens])
    assert {each.text for each in found.sources} == {"the", "cat", "sleeps"}
    for each in found.sources:
        kept = [token.id for index, token in enumerate(tokens) if not each.positions[0] <= index < each.positions[1]]
        assert each.effect == pytest.approx(log_probability(kept) - whole, abs=1e-4)


def test_what_is_tokenized_can_be_put_together_again(translator):
    for tokenizer, texts in ((translator.tokenizer, SOURCES), (translator.tokenizer.target, TARGETS)):
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            assert ids == tokenizer.encode(text) == tokenizer.spans(text)[0]
            assert tokenizer.decode(ids) == text
            # every letter is some token's
            covered = {place for token in tokenizer.tokens(text) for place in range(token.start, token.end)}
            assert {place for place, letter in enumerate(text) if letter != " "} <= covered
            words, indices = tokenizer.text_word_indices(text)
            assert (words, indices) == (text.split(), tokenizer.word_indices(ids)[1])


def test_a_prefix_is_kept_to_the_letter_and_coverage_reads_the_cross_attention(translator):
    for found in translator.translate_n_best(SOURCES, prefixes=["le ch", "", "d", "elle lit un"], num_beams=2):
        assert found
    for prefix in ("le ch", "elle lit un"):
        (best, *_) = translator.translate_n_best([SOURCES[0]], prefixes=[prefix], num_beams=2, max_new_tokens=4)[0]
        assert best.text.startswith(prefix)
    plain = translator.translate(SOURCES, num_beams=3, max_new_tokens=4)
    covered = translator.translate(SOURCES, num_beams=3, max_new_tokens=4, coverage_penalty=2.0)
    # the penalty is a logarithm of weights of at most 1
    assert all(one.score < one.log_probability / 4 + 1e-6 for one in covered)
    assert len(plain) == len(covered)


def test_samples_depend_on_the_seed_and_the_place_alone(translator):
    settings = {"do_sample": True, "n_best": 3, "max_new_tokens": 5}
    together = translator.translate_n_best(SOURCES, **settings)
    alone = translator.translate_n_best(SOURCES[2:], first=2, **settings)
    assert [each.tokens for each in together[3]] == [each.tokens for each in alone[1]]


def test_a_corpus_of_pairs_keeps_its_frames(translator, tmp_path):
    pairs = [Pair(*pair) for pair in zip(SOURCES, TARGETS, strict=True)]
    in_memory, _ = tokenize(pairs, translator.tokenizer, max_length=64)
    prepare(pairs, translator.tokenizer, tmp_path / "made", max_length=64)
    opened = TokenizedCorpus.open(tmp_path / "made")
    assert opened.frames == in_memory.frames == translator.tokenizer.frames
    batch = opened.batch(range(4))
    assert torch.equal(batch.target, batch_of(translator).target)
    found, wanted = (likelihood(translator.module, corpus) for corpus in (opened, in_memory))
    np.testing.assert_array_equal(found.log_probs, wanted.log_probs)
    assert found.log_probs.tolist() == pytest.approx(
        [each.log_probability for each in translator.score(SOURCES, TARGETS)], abs=1e-4
    )


# languages


def test_a_forced_language_token_arrives_in_source_and_target(folder_of):
    for name, source, target in (
        ("m2m_100", "de", "zh"),
        ("nllb", "deu_Latn", "zho_Hans"),
        ("mbart", "de_DE", "zh_CN"),
        ("mbart_50", "de_DE", "zh_CN"),
    ):
        found = regard.load(folder_of(name), source_language=source, target_language=target)
        frames, backend = found.tokenizer.frames, found.tokenizer.backend
        tags = {f"__{code}__" if name == "m2m_100" else code for code in (source, target)}
        named = {backend.convert_ids_to_tokens(id) for frame in frames.sides for part in frame for id in part}
        assert tags <= named
        reading = found.read(SOURCES[0], max_new_tokens=3)
        assert {token.text for sequence in reading.sequences.values() for token in sequence.tokens} >= tags
    other = regard.load(folder_of("marian_many"), target_language=">>deu<<")
    assert other.tokenizer.name_of(other.tokenizer.frames.source.before[0]) == ">>deu<<"


def test_languages_change_what_is_written(folder_of):
    written = {
        target: regard.load(folder_of("nllb"), target_language=target).score(SOURCES, TARGETS)[0].log_probability
        for target in ("fra_Latn", "deu_Latn")
    }
    assert written["fra_Latn"] != written["deu_Latn"]


@pytest.mark.parametrize(
    ("name", "languages", "says"),
    [
        ("nllb", {}, r"writes 4 languages; give target_language, such as deu_Latn, eng_Latn, fra_Latn"),
        ("m2m_100", {}, r"writes 100 languages; give target_language, such as af, am"),
        ("marian_many", {}, r"writes 2 languages; give target_language, such as deu, fra"),
        ("nllb", {"target_language": "fra_Lat"}, r"no tag for target_language 'fra_Lat'; did you mean 'fra_Latn'\?"),
        ("mbart_50", {"source_language": "fr", "target_language": "fr_XX"}, r"no tag for source_language 'fr'"),
        ("marian_many", {"source_language": "eng", "target_language": "fra"}, r"no tags for source languages"),
        ("marian", {"target_language": "fra"}, r"has no language tags, so it takes no target_language; leave it out"),
        ("t5", {"target_language": "fra"}, r"give source_prefix, such as 'translate English to French: '"),
        ("bart", {"source_language": "en"}, r"no tags for source languages"),
    ],
)
def test_languages_that_the_tokenizer_lacks_are_told(folder_of, name, languages, says):
    with pytest.raises(RegardError, match=says):
        regard.load(folder_of(name), **languages)


def test_languages_that_a_folder_names_need_not_be_given(folder_of, tmp_path):
    folder = tmp_path / "tuned"
    shutil.copytree(folder_of("nllb"), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"src_lang": "deu_Latn", "tgt_lang": "fra_Latn"}))
    given = regard.load(folder_of("nllb"), source_language="deu_Latn", target_language="fra_Latn")
    assert regard.load(folder).tokenizer.frames == given.tokenizer.frames


def test_the_language_that_sources_are_taken_to_be_in_is_told(folder_of, caplog):
    regard.load(folder_of("nllb"), target_language="fra_Latn")
    assert "takes texts to be in eng_Latn; give source_language" in caplog.text
    caplog.clear()
    regard.load(folder_of("nllb"), source_language="deu_Latn", target_language="fra_Latn")
    assert "source_language" not in caplog.text


def test_a_source_prefix_stands_before_every_source(folder_of):
    prefix = "translate English to French: "
    found = regard.load(folder_of("t5"), source_prefix=prefix)
    _model, backend = theirs(found)
    tokenizer = found.tokenizer
    assert tokenizer.frames.source(tokenizer.encode(SOURCES[0])) == backend(prefix + SOURCES[0]).input_ids
    # what is read is the text, of which the prefix is no part
    reading = found.read(SOURCES[0], TARGETS[0])
    assert reading.sequences["source"].words == SOURCES[0].split()


def test_special_tokens_in_a_text_are_plain_text_or_refused(folder_of):
    found = regard.load(folder_of("m2m_100"), target_language="fr")
    ids = found.tokenizer.encode("the </s> cat __fr__")
    assert not {2, found.tokenizer.frames.target.before[-1]} & set(ids)
    with pytest.raises(RegardError, match=r"'</s>', which the tokenizer of t5 cannot write as plain text"):
        regard.load(folder_of("t5")).translate("the </s> cat")


def test_unknown_letters_are_shown_as_unknown(folder_of):
    found = regard.load(folder_of("marian"))
    assert "⁇" in found.tokenizer.decode(found.tokenizer.encode("the 猫"))


def test_a_text_that_is_too_long_is_told(folder_of):
    found = regard.load(folder_of("marian"))
    with pytest.raises(RegardError, match=r"has \d+ tokens, the model reads at most 64"):
        found.translate("the cat " * 60)
    with pytest.raises(RegardError, match="is no run of Regard, so it has no splits"):
        found.evaluate()


def test_perplexity_follows_from_the_scores(folder_of, tmp_path):
    found = regard.load(folder_of("nllb"), target_language="fra_Latn")
    (tmp_path / "test.tsv").write_text("".join(f"{one}\t{two}\n" for one, two in zip(SOURCES, TARGETS, strict=True)))
    quality = found.evaluate(files=[tmp_path / "test.tsv"], max_new_tokens=4)
    scores = found.score(SOURCES, TARGETS)
    tokens = sum(len(each.tokens) + 1 for each in scores)
    assert quality.perplexity == pytest.approx(
        math.exp(-sum(each.log_probability for each in scores) / tokens), rel=1e-4
    )

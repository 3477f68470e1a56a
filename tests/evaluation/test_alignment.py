"""Alignment error rate is that of the paper's definition, of the weights that the model used and of no padding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.attention.output import AttentionMap, ModelOutput
from regard.data.links import Links
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.evaluation.alignment import Gold, compare, count_links, error_rates, evaluate_alignment
from regard.models import build, read_config
from regard.reading.replay import Words, alignments, pharaoh

# a vocabulary of bytes alone, so that a test knows every token
BYTES = Tokenizer.train(["x"], kind="bpe", vocab_size=260)


def links(sure, possible=()):
    return Links(sure=frozenset(sure), possible=frozenset(sure) | frozenset(possible))


def gold(source, target, sure=(), possible=(), tokenizer=BYTES):
    sides = (Words.of_text(tokenizer, text) for text in (source, target))
    return Gold(*sides, links=links(sure, possible))


def rates(*sentences):
    (found,) = error_rates(np.sum([[compare(*sentence)] for sentence in sentences], axis=0, dtype=float))
    return found.tolist()


def by_definition(sentences):
    """Och and Ney 2003, equations of section 5, over the sets of all links of a corpus."""
    a, s, p = (
        {(number, *link) for number, sentence in enumerate(sentences) for link in part(sentence)}
        for part in (lambda it: it[0], lambda it: it[1].sure, lambda it: it[1].possible)
    )
    return [1 - (len(a & s) + len(a & p)) / (len(a) + len(s)), len(a & p) / len(a), len(a & s) / len(s)]


def test_rates_are_those_worked_out_by_hand() -> None:
    # found 3, sure 2, found and sure 1, found and possible 2
    sentence = ([(0, 0), (2, 1), (3, 2)], links(sure=[(0, 0), (1, 1)], possible=[(2, 1)]))
    assert rates(sentence) == pytest.approx([1 - (1 + 2) / (3 + 2), 2 / 3, 1 / 2])
    # another with found 1, sure 3, found and sure 1: a corpus is counted as one, not as the mean of its sentences
    other = ([(1, 1)], links(sure=[(0, 0), (1, 1), (2, 2)]))
    assert rates(sentence, other) == pytest.approx([1 - (2 + 3) / (4 + 5), 3 / 4, 2 / 5])


def test_the_error_is_nought_for_all_sure_links_and_any_possible_ones_and_one_for_none_of_them() -> None:
    wanted = links(sure=[(0, 0), (1, 1)], possible=[(1, 2)])
    assert rates(([(0, 0), (1, 1)], wanted)) == [0, 1, 1]
    assert rates(([(0, 0), (1, 1), (1, 2)], wanted)) == [0, 1, 1]
    assert rates(([(5, 5)], wanted)) == [1, 0, 0]
    # of no links found none is right or wrong
    assert rates(([], wanted)) == pytest.approx([1, math.nan, 0], nan_ok=True)


def test_a_link_counts_once_however_often_it_is_found() -> None:
    assert compare([(0, 0), (0, 0)], links([(0, 0)])) == [1, 1, 1, 1]


def test_nothing_found_and_nothing_wanted_is_no_error() -> None:
    assert rates(([], links([]))) == pytest.approx([0, math.nan, math.nan], nan_ok=True)


LINK = st.tuples(st.integers(0, 3), st.integers(0, 3))
SENTENCE = st.tuples(st.frozensets(LINK), st.builds(links, st.frozensets(LINK), st.frozensets(LINK)))


@given(st.lists(SENTENCE, min_size=1, max_size=5))
def test_rates_are_those_of_the_definition(sentences) -> None:
    # the definition divides by these
    first = ([(0, 0)], links([(0, 1)], [(0, 0)]))
    assert rates(first, *sentences) == pytest.approx(by_definition([first, *sentences]))


class Looks(torch.nn.Module):
    """A model that looks where it is told: for each layer and head, at which source token each target token looks."""

    def __init__(self, *layers) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, batch, read=False):
        assert read
        maps = []
        for number, heads in enumerate(self.layers):
            weights = torch.zeros(len(batch.source), len(heads), batch.inputs.shape[1], batch.source.shape[1])
            for head, look in enumerate(heads):
                for row, length in enumerate(batch.source_lengths.tolist()):
                    for target in range(weights.shape[2]):
                        weights[row, head, target] = look(target, length, weights.shape[3])
            value = torch.randn(len(batch.source), len(heads), batch.source.shape[1], 3)
            maps.append(AttentionMap("cross", number, weights, value, weights @ value))
        return ModelOutput(logits=torch.zeros(0), attention=maps)


def at(place):
    """All weight on the token that `place` names by the target token and the source's length with EOS."""

    def look(target, length, width):
        return torch.nn.functional.one_hot(torch.tensor(place(target, length)).clamp(0, length - 1), width).float()

    return look


SAME = at(lambda target, length: target)
MIRRORED = at(lambda target, length: length - 2 - target)
EOS = at(lambda target, length: length - 1)
# one letter a word: tokens 0, 2, 4 are letters, and the space before a word is part of it
ABC = "a b c"
DIAGONAL = [(0, 0), (1, 1), (2, 2)]
# token 0 looks at 4; the others' tokens, space and letter, look at 3 and 2, 1 and 0
ANTIDIAGONAL = [(2, 0), (1, 1), (0, 2)]


@pytest.mark.parametrize(("look", "found"), [(SAME, DIAGONAL), (MIRRORED, ANTIDIAGONAL), (EOS, [])])
def test_links_are_where_a_model_is_made_to_look(look, found) -> None:
    counts = count_links(Looks([look]), [gold(ABC, ABC, sure=DIAGONAL)])
    assert {head: table.tolist() for head, table in counts.items()} == {(0, 0): [compare(found, links(DIAGONAL))]}


def test_every_head_counts_and_so_does_the_mean_of_a_layers_heads() -> None:
    # two of three heads outvote the third
    module = Looks([SAME, MIRRORED, MIRRORED], [SAME, SAME, MIRRORED])
    quality = evaluate_alignment(module, {"test": [gold(ABC, ABC, sure=DIAGONAL)]}, "test")
    right, wrong = (0, 1, 1), (1 - 2 / 6, 1 / 3, 1 / 3)
    assert [(part.layer, part.head, (part.aer, part.precision, part.recall)) for part in quality.aer_by_head] == [
        (0, 0, right), (0, 1, pytest.approx(wrong)), (0, 2, pytest.approx(wrong)), (0, None, pytest.approx(wrong)),
        (1, 0, right), (1, 1, right), (1, 2, pytest.approx(wrong)), (1, None, right),
    ]  # fmt: skip


def test_a_word_takes_the_weight_of_all_its_tokens() -> None:
    """One token with 0.4 is less than three of one word with 0.2 each."""

    def look(target, length, width):
        weights = torch.zeros(width)
        weights[0], weights[2:5] = 0.4, 0.2
        return weights

    counts = count_links(Looks([look]), [gold("a bcd", "x", sure=[(1, 0)])])
    assert counts[0, 0].tolist() == [[1, 1, 1, 1]]


def test_of_the_tokens_of_a_target_word_the_mean_decides() -> None:
    """Two letters look a little at the second word, the third looks hard at the first."""

    def look(target, length, width):
        weights = torch.zeros(width)
        weights[0] = 1.0 if target == 2 else 0.3
        weights[2] = 1 - weights[0]
        return weights

    counts = count_links(Looks([look]), [gold("a b", "xyz", sure=[(0, 0)])])
    assert counts[0, 0].tolist() == [[1, 1, 1, 1]]


def test_chinese_is_aligned_by_characters() -> None:
    # a character is three bytes, a word of the target one letter and the space before it
    look = at(lambda target, length: 3 * (3 - (target + 1) // 2) + target % 3)
    found = [(3, 0), (2, 1), (1, 2), (0, 3)]
    counts = count_links(Looks([look]), [gold("我喜欢猫", "a b c d", sure=found)])
    assert counts[0, 0].tolist() == [[4, 4, 4, 4]]
    back = at(lambda target, length: 2 * (target // 3))
    counts = count_links(Looks([back]), [gold("a b c d", "我喜欢猫", sure=DIAGONAL)])
    assert counts[0, 0].tolist() == [[4, 3, 3, 3]]


def test_words_are_those_of_the_reference_even_where_the_tokenizer_knows_none_of_them() -> None:
    tokenizer = Tokenizer.train(["a b c"], kind="word", vocab_size=8)
    # "don’t" is three tokens of no known word, and one word all the same
    target = gold("a b", "x don’t y", sure=[(0, 0)], tokenizer=tokenizer)
    assert (target.target.num_words, len(target.target.ids)) == (3, 5)
    counts = count_links(Looks([at(lambda target, length: 0)]), [target])
    assert counts[0, 0].tolist() == [[3, 1, 1, 1]]


def test_the_head_is_chosen_on_dev_and_measured_on_the_split() -> None:
    module = Looks([SAME, MIRRORED])
    golds = {"dev": [gold(ABC, ABC, sure=ANTIDIAGONAL)], "test": [gold(ABC, ABC, sure=DIAGONAL)] * 2}
    quality = evaluate_alignment(module, golds, "test")
    assert (quality.aer_head.layer, quality.aer_head.head, quality.aer_head.chosen_on) == (0, 1, "dev")
    assert quality.aer == pytest.approx(2 / 3)
    assert (quality.aer_precision, quality.aer_recall) == pytest.approx((1 / 3, 1 / 3))
    on_dev = evaluate_alignment(module, golds, "dev")
    assert (on_dev.aer, on_dev.aer_head) == (0, quality.aer_head)


def test_without_dev_it_is_the_mean_of_the_last_layer_and_a_single_head_is_no_choice() -> None:
    test = {"test": [gold(ABC, ABC, sure=DIAGONAL)]}
    head = evaluate_alignment(Looks([SAME, SAME], [MIRRORED, MIRRORED]), test, "test").aer_head
    assert (head.layer, head.head, head.chosen_on) == (1, None, None)
    head = evaluate_alignment(Looks([SAME]), test | {"dev": test["test"]}, "test").aer_head
    assert (head.layer, head.head, head.chosen_on) == (0, 0, None)


def test_the_interval_holds_the_rate_and_closes_where_all_sentences_fare_alike() -> None:
    right, wrong = gold(ABC, ABC, sure=DIAGONAL), gold(ABC, ABC, sure=[(0, 1)])
    mixed = evaluate_alignment(Looks([SAME]), {"test": [right, wrong] * 20}, "test")
    assert mixed.aer_low < mixed.aer < mixed.aer_high
    assert mixed == evaluate_alignment(Looks([SAME]), {"test": [right, wrong] * 20}, "test")
    alike = evaluate_alignment(Looks([SAME]), {"test": [wrong] * 9}, "test")
    assert alike.aer_low == alike.aer == alike.aer_high == 1


def test_a_layer_that_proves_wrong_is_refused() -> None:
    def look(target, length, width):
        return torch.full((width,), 0.5)

    with pytest.raises(RegardError, match="cross layer 0 was refused: its rows do not sum to 1"):
        count_links(Looks([look]), [gold(ABC, ABC)])


TEXTS = [
    ("one two three, it's four", "un deux trois, c'est quatre"),
    ("five six 七八 seven 🙂", "cinq six 七八 sept 🙂"),
    ("two", "deux"),
    ("six six six six six six", "six"),
    ("one", "un un un un un un un un un un"),
]
MODELS = {
    "additive": {"type": "rnn", "attention": "additive", "embedding_dim": 12, "hidden_dim": 10},
    "general": {"type": "rnn", "attention": "general", "embedding_dim": 12, "hidden_dim": 10},
    "transformer": {"type": "transformer", "model_dim": 12, "num_heads": 3, "num_layers": 2, "feed_forward_dim": 20},
}


def model(name, vocab_size):
    config = read_config({**MODELS[name], "max_length": 60}, where="[model]")
    module = build(config, vocab_size).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    return module


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_neither_padding_nor_the_batch_changes_a_link(name, kind) -> None:
    tokenizer = Tokenizer.train([side for pair in TEXTS for side in pair], kind=kind, vocab_size=290)
    module = model(name, len(tokenizer))
    golds = [gold(*pair, sure=[(0, 0)], tokenizer=tokenizer) for pair in TEXTS]
    alone = [count_links(module, [one]) for one in golds]
    for batch_size in (1, 2, 32):
        together = count_links(module, golds, batch_size=batch_size)
        for head, table in together.items():
            np.testing.assert_array_equal(table, np.concatenate([counts[head] for counts in alone]))


@pytest.mark.parametrize("name", MODELS)
def test_links_are_those_that_a_translation_is_told_to_have(name) -> None:
    """The same as reading each head's alignments by themselves, in the Pharaoh format."""
    tokenizer = Tokenizer.train([side for pair in TEXTS for side in pair], kind="bpe", vocab_size=290)
    module = model(name, len(tokenizer))
    sources, targets = zip(*TEXTS, strict=True)
    ids = tokenizer.encode_batch(targets)
    for (layer, head), _ in count_links(module, [gold(*TEXTS[0], tokenizer=tokenizer)]).items():
        told = [pharaoh(table) for table in alignments(module, tokenizer, sources, ids, layer=layer, head=head)]
        golds = [
            gold(*pair, sure=[tuple(map(int, link.split("-"))) for link in line.split()], tokenizer=tokenizer)
            for pair, line in zip(TEXTS, told, strict=True)
        ]
        assert all(one.links.sure for one in golds)
        (found,) = error_rates(count_links(module, golds)[layer, head].sum(axis=0, keepdims=True))
        assert found.tolist() == [0, 1, 1]


def test_a_model_without_attention_has_no_alignment() -> None:
    config = read_config({"type": "rnn", "attention": "none", "embedding_dim": 4, "hidden_dim": 4}, where="[model]")
    module = build(config, len(BYTES)).eval()
    assert evaluate_alignment(module, {"test": [gold("a b", "c")]}, "test") is None


def test_without_links_to_find_there_is_no_rate_of_errors() -> None:
    none, some = [gold(ABC, ABC)], [gold(ABC, ABC, sure=DIAGONAL)]
    module = Looks([SAME, MIRRORED])
    assert evaluate_alignment(module, {"test": none, "dev": some}, "test") is None
    found = evaluate_alignment(module, {"test": some, "dev": none}, "test")
    assert found == evaluate_alignment(module, {"test": some}, "test")

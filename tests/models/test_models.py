"""What every model must hold to, whatever its settings: reading, decoding step by step and batching change nothing."""

import itertools

import pytest
import torch

from regard.attention.cache import Cache
from regard.data.batch import BOS, EOS, collate
from regard.errors import RegardError
from regard.models import MODELS, build, read_config, type_name
from regard.models.rnn import RNNConfig
from regard.models.transformer import TransformerConfig

VOCAB_SIZE = 11


def rnn_settings():
    choices = itertools.product(
        ("none", "additive", "dot", "general", "concat"), ("gru", "lstm"), (1, 2), (False, True), (False, True)
    )
    for attention, cell, num_layers, bidirectional, input_feeding in choices:
        if attention == "dot" and bidirectional:
            continue
        if input_feeding and attention in ("none", "additive"):
            continue
        yield {
            "attention": attention,
            "cell": cell,
            "num_layers": num_layers,
            "bidirectional": bidirectional,
            "input_feeding": input_feeding,
            # either way with either cell
            "tied_embeddings": (cell == "gru") == bidirectional,
            "embedding_dim": 6,
            "hidden_dim": 5,
        }


def transformer_settings():
    for norm, tied, num_layers in itertools.product(("pre", "post"), (False, True), (1, 2)):
        sizes = {"model_dim": 8, "num_heads": 2, "feed_forward_dim": 12, "max_length": 24}
        yield {"norm": norm, "tied_embeddings": tied, "num_layers": num_layers} | sizes


SETTINGS = {"rnn": list(rnn_settings()), "transformer": list(transformer_settings())}


def label(case):
    name, settings = case
    sizes = ("embedding_dim", "hidden_dim", "model_dim", "num_heads", "feed_forward_dim", "max_length")
    shown = (
        value if isinstance(value, str) else f"{key}={value}" for key, value in settings.items() if key not in sizes
    )
    return "-".join([name, *shown])


# a family without settings here fails at once; pretrained ones are made of files: pretrained/test_translators.py
TRANSLATORS = [name for name, family in MODELS.items() if family.translates and name != "pretrained"]
CASES = [(name, settings) for name in TRANSLATORS for settings in SETTINGS[name]]


@pytest.fixture(params=CASES, ids=label)
def config(request):
    name, settings = request.param
    return read_config({"type": name} | settings, where="[model]")


@pytest.fixture
def model(config):
    return build(config, VOCAB_SIZE).double().eval()


SOURCES = [[4, 5, 6, 7, 8], [9], [10, 4, 4], []]
TARGETS = [[7, 8], [], [5, 6, 9, 10, 4], [6, 6, 6]]
BATCH = collate(SOURCES, TARGETS)


def expected_maps(config):
    if isinstance(config, TransformerConfig):
        return {(kind, layer) for kind in ("encoder", "decoder", "cross") for layer in range(config.num_layers)}
    assert isinstance(config, RNNConfig)
    return set() if config.attention == "none" else {("cross", 0)}


def visible(kind):
    """Which keys the queries of a map of BATCH may see: [batch, query or 1, key]."""
    if kind == "decoder":
        steps = BATCH.inputs.shape[1]
        return (torch.arange(steps) <= torch.arange(steps)[:, None]).expand(len(SOURCES), -1, -1)
    return (torch.arange(BATCH.source.shape[1]) < BATCH.source_lengths[:, None])[:, None]


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def step_through(model, source, lengths, targets):
    """Logits of one target a sentence, written one token at a time: [batch, step, vocabulary]."""
    cache = model.encode(source, lengths)
    return torch.cat([model.decode_step(tokens[:, None], cache).logits for tokens in targets.T], dim=1)


@torch.no_grad()
def test_reading_leaves_every_bit_of_the_logits(config, model):
    model = model.float()
    assert torch.equal(model(BATCH).logits, model(BATCH, read=True).logits)


@torch.no_grad()
def test_only_who_asks_gets_the_maps_and_gets_all_of_them(config, model):
    assert model(BATCH).attention == []
    maps = model(BATCH, read=True).attention
    assert {(map.kind, map.layer) for map in maps} == expected_maps(config)
    assert len(maps) == len(expected_maps(config))


@torch.no_grad()
def test_the_rows_of_a_map_sum_to_one_over_what_may_be_seen(model):
    for map in model(BATCH, read=True).attention:
        hidden = ~visible(map.kind)[:, None].expand(map.weights.shape)
        assert hidden.any()
        assert (map.weights[hidden] == 0).all()
        assert (map.weights[~hidden] > 0).all()
        assert_close(map.weights.sum(-1), torch.ones(map.weights.shape[:-1], dtype=torch.float64))


@torch.no_grad()
def test_the_weights_of_a_map_make_the_context_that_the_model_used(model):
    for map in model(BATCH, read=True).attention:
        assert_close(map.weights @ map.value, map.context)


@torch.no_grad()
def test_logits_written_step_by_step_are_those_of_the_whole_target(model):
    stepped = step_through(model, BATCH.source, BATCH.source_lengths, BATCH.inputs)
    assert_close(stepped, model(BATCH).logits)


@torch.no_grad()
def test_beams_of_a_sentence_go_their_own_ways(model):
    cache = model.encode(BATCH.source, BATCH.source_lengths)
    model.decode_step(torch.full((4, 1), BOS), cache)
    # three beams a sentence, then sentences 0 and 3 leave, and the beams of the others are told apart by their past
    cache.select(torch.arange(4), torch.zeros(4, 3, dtype=torch.int64))
    model.decode_step(torch.tensor([[4, 5, 6]] * 4), cache)
    cache.select(torch.tensor([1, 2]), torch.tensor([[2, 0], [1, 1]]))
    logits = model.decode_step(torch.tensor([[7, 8], [9, 10]]), cache).logits
    pasts = [[BOS, 6, 7], [BOS, 4, 8]], [[BOS, 5, 9], [BOS, 5, 10]]
    for row, sentence in enumerate([1, 2]):
        for beam in range(2):
            batch = collate([SOURCES[sentence]], [pasts[row][beam][1:]])
            assert_close(logits[row, beam], model(batch).logits[0, 2])


@torch.no_grad()
def test_cross_attention_read_in_decoding_is_that_of_the_whole_target(model):
    cross = [map for map in model(BATCH, read=True).attention if map.kind == "cross"]
    cache = model.encode(BATCH.source, BATCH.source_lengths)
    for step, tokens in enumerate(BATCH.inputs.T):
        # the second beam goes the same way as the first
        output = model.decode_step(tokens[:, None].expand(-1, 2 if step else 1), cache, read=True)
        assert [(map.kind, map.layer) for map in output.attention] == [(map.kind, map.layer) for map in cross]
        for ours, theirs in zip(output.attention, cross, strict=True):
            for beam in range(ours.weights.shape[2]):
                assert_close(ours.weights[:, :, beam], theirs.weights[:, :, step])
                assert_close(ours.context[:, :, beam], theirs.context[:, :, step])
        cache.select(torch.arange(4), torch.tensor([[0, 0]] * 4))


@torch.no_grad()
def test_a_sentence_alone_has_the_logits_and_maps_that_it_has_in_a_batch(model):
    together = model(BATCH, read=True)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = model(collate([source], [target]), read=True)
        steps, length = len(target) + 1, len(source) + 1
        assert_close(together.logits[row, :steps], alone.logits[0])
        for ours, theirs in zip(alone.attention, together.attention, strict=True):
            queries = length if ours.kind == "encoder" else steps
            keys = steps if ours.kind == "decoder" else length
            assert_close(theirs.weights[row, :, :queries, :keys], ours.weights[0])
            assert_close(theirs.context[row, :, :queries], ours.context[0])


@torch.no_grad()
def test_what_stands_in_the_padding_changes_nothing(model):
    before = model(BATCH).logits
    padding = torch.arange(BATCH.source.shape[1]) >= BATCH.source_lengths[:, None]
    poisoned = BATCH.source.masked_fill(padding, 8)
    assert (poisoned != BATCH.source).any()
    assert_close(step_through(model, poisoned, BATCH.source_lengths, BATCH.inputs), before)


@torch.no_grad()
def test_a_later_token_of_the_target_changes_no_earlier_logits(model):
    before = model(collate([SOURCES[0]], [[4, 5, 6, 7]])).logits[0]
    for position in range(4):
        target = [4, 5, 6, 7]
        target[position] = 9
        after = model(collate([SOURCES[0]], [target])).logits[0]
        changed = ((after - before).abs() > 1e-9).any(dim=-1).tolist()
        # token `position` is fed after that many, and BOS, and so is seen from step position + 1 on
        assert changed == [step > position for step in range(5)]


@torch.no_grad()
def test_every_token_of_the_source_counts(model):
    before = model(collate([[4, 5, 6, 7]], [[]])).logits
    for position in range(4):
        source = [4, 5, 6, 7]
        source[position] = 9
        assert ((model(collate([source], [[]])).logits - before).abs() > 1e-9).any()


def test_the_gradient_reaches_every_parameter(model):
    batch = collate([[*range(4, VOCAB_SIZE)]] * 2, [[*range(4, VOCAB_SIZE)], [5, 4, 6]])
    model(batch).logits.log_softmax(-1)[..., 5].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # a bias of the keys adds one number to all scores of a query, which softmax does not see
        if not name.endswith("key_proj.bias"):
            assert parameter.grad.abs().max() > 1e-9, name


@torch.no_grad()
def test_a_source_of_one_token_and_a_target_of_none_are_no_exception(model):
    logits = model(collate([[]], [[]])).logits
    assert logits.shape == (1, 1, VOCAB_SIZE)
    assert logits.isfinite().all()


@torch.no_grad()
def test_dropout_acts_in_training_only(model):
    assert torch.equal(model(BATCH).logits, model(BATCH).logits)
    model.train()
    assert not torch.equal(model(BATCH).logits, model(BATCH).logits)


@torch.no_grad()
def test_a_cache_holds_a_row_a_sentence_and_a_row_a_hypothesis(model):
    cache = model.encode(BATCH.source, BATCH.source_lengths)
    assert isinstance(cache, Cache)
    assert cache.batch_size == len(SOURCES)
    model.decode_step(torch.full((4, 1), BOS), cache)
    cache.select(torch.arange(4), torch.zeros(4, 3, dtype=torch.int64))
    model.decode_step(torch.full((4, 3), EOS), cache)
    assert {len(tensor) for tensor in cache.source} == {4}
    assert {len(tensor) for tensor in cache.hypotheses} == ({12} if cache.past is None else set())
    assert cache.past is None or cache.past.mask.shape[:2] == (4, 3)


def test_embeddings_share_their_memory_only_where_they_are_tied(config, model):
    addresses = {part.weight.data_ptr() for part in (model.source_embedding, model.target_embedding, model.output)}
    assert len(addresses) == (1 if config.tied_embeddings else 3)
    matrices = [p for p in model.parameters() if p.shape[0] == VOCAB_SIZE]
    assert len(matrices) == len(addresses)


def test_the_type_of_a_config_is_the_name_it_was_read_by():
    for name, settings in CASES:
        assert type_name(read_config({"type": name} | settings, where="[model]")) == name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "transfomer"}, r"\[model\] type is 'transfomer'; did you mean 'transformer'\?"),
        ({}, r"\[model\] type is None; choose from rnn, transformer"),
        ({"type": "rnn", "hiden_dim": 3}, r"\[model\] has no setting 'hiden_dim'; did you mean 'hidden_dim'\?"),
        ({"type": "rnn", "attention": "luong"}, "attention must be one of none, additive, dot, general, concat"),
        ({"type": "rnn", "attention": "dot"}, r"\[model\] attention 'dot' compares .* set bidirectional = false"),
        ({"type": "rnn", "input_feeding": True}, r"\[model\] input_feeding belongs to Luong's attention"),
        ({"type": "rnn", "attention": "additive", "input_feeding": True}, "input_feeding belongs to Luong's"),
        ({"type": "rnn", "dropout": 1.0}, r"\[model\] dropout must be below 1"),
        ({"type": "transformer", "num_heads": 3}, r"\[model\] model_dim 256 cannot be cut into 3 heads"),
        ({"type": "transformer", "num_heads": 0}, r"\[model\] num_heads must be at least 1"),
        ({"type": "transformer", "norm": "none"}, r"\[model\] norm must be one of pre, post"),
    ],
)
def test_settings_that_make_no_model_are_refused_with_their_place(values, message):
    with pytest.raises(RegardError, match=message):
        read_config(values, where="[model]")


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_a_decoder_that_is_denied_the_target_goes_by_the_source_alone(name):
    settings = next(iter(SETTINGS[name])) | {"type": name, "dropout": 0.0, "token_dropout": 0.999_999}
    torch.manual_seed(0)
    model = build(read_config(settings, where="test"), VOCAB_SIZE)
    sources, targets = ([4, 5, 6], [7, 8]), ([9, 4, 10], [5, 5, 6])
    (one, other), (another, _) = (model(collate(sources, rows)).logits for rows in (targets, targets[::-1]))
    assert torch.equal(one, another)
    assert not torch.equal(one, other)
    model.eval()
    assert not torch.equal(*(model(collate(sources, rows)).logits[0] for rows in (targets, targets[::-1])))

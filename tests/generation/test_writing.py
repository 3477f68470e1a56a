"""What a language model writes: what transformers writes of the same weights, whatever shares its batch."""

import numpy as np
import pytest
import torch

from regard.errors import RegardError
from regard.generation.steps import OwnFeed, TransformersFeed, write
from regard.generation.writing import Writing
from regard.models.pretrained.folder import load_own

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
VOCABULARY = 61
CONTEXT = 40
NO_ENDS = {"bos_token_id": None, "eos_token_id": None}
PROMPTS = [[5], [7, 8, 9, 10, 11, 12, 13], [3, 60, 3, 60]]


@pytest.fixture(scope="module", params=["Llama", "Mistral", "GPT2"])
def pair(request, tmp_path_factory):
    """A module of transformers, and Regard's of the same weights."""
    torch.manual_seed(1)
    if request.param == "GPT2":
        sizes = {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
        # with the same weights at both ends it would repeat itself
        config = transformers.GPT2Config(**sizes, **NO_ENDS, tie_word_embeddings=False)
        theirs = transformers.GPT2LMHeadModel(config)
    else:
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
        window = {"sliding_window": 5} if request.param == "Mistral" else {}
        config = getattr(transformers, f"{request.param}Config")(**sizes, **heads, **window)
        theirs = getattr(transformers, f"{request.param}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.dim() == 1) * 0.6)
    theirs.generation_config = transformers.GenerationConfig(pad_token_id=0)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    own = load_own(folder, dtype=torch.float32)
    assert own is not None
    return theirs.eval(), own[0]


def written(module, prompts, *, ends=(), feed=OwnFeed, samples=1, first=0, going_on=lambda row: True, **settings):
    """Tokens and log-probabilities of every row."""
    made = OwnFeed(module, 2 * CONTEXT) if feed is OwnFeed else feed(module)
    rows = [([], []) for _ in range(len(prompts) * samples)]
    steps = write(
        made,
        prompts,
        Writing.of({"max_new_tokens": 12, **settings}),
        ends=frozenset(ends),
        context_length=CONTEXT,
        device=CPU,
        first=first,
        samples=samples,
        going_on=going_on,
    )
    for step in steps:
        for row, token, log_probability in zip(step.rows, step.tokens, step.log_probabilities, strict=True):
            rows[row][0].append(token)
            rows[row][1].append(log_probability)
    return rows


def tokens(*args, **settings):
    return [ids for ids, _ in written(*args, **settings)]


@torch.no_grad()
def generated(theirs, prompt, count=12, **settings):
    ids = torch.tensor([prompt])
    found = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, **settings)
    return found[0, len(prompt) :].tolist()


def test_greedy_text_is_that_of_transformers(pair):
    theirs, ours = pair
    found = tokens(ours, PROMPTS)
    assert found == [generated(theirs, prompt) for prompt in PROMPTS]
    assert len({tuple(ids) for ids in found}) > 1


def test_a_text_ends_with_the_token_that_ends_it_while_others_go_on(pair):
    theirs, ours = pair
    whole = tokens(ours, PROMPTS)
    end = whole[1][4]
    found = tokens(ours, PROMPTS, ends=[end])
    assert found == [generated(theirs, prompt, eos_token_id=end) for prompt in PROMPTS]
    assert len({len(ids) for ids in found}) > 1


def test_a_repetition_penalty_is_that_of_transformers(pair):
    theirs, ours = pair
    for penalty in (1.3, 5.0):
        found = tokens(ours, PROMPTS, repetition_penalty=penalty)
        assert found == [generated(theirs, prompt, repetition_penalty=penalty) for prompt in PROMPTS]
    assert found != tokens(ours, PROMPTS)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.3},
        {"temperature": 2.0, "top_k": 5},
        {"temperature": 1.5, "top_p": 0.6},
        {"temperature": 1.2, "min_p": 0.2},
        {"temperature": 1.2, "repetition_penalty": 1.5},
        {"temperature": 1.1, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_a_token_is_drawn_by_the_probabilities_that_transformers_gives_it(pair, settings):
    """Where a number between 0 and 1 falls among their sums."""
    theirs, ours = pair
    processors = transformers.LogitsProcessorList()
    for name, kind in (
        ("repetition_penalty", transformers.RepetitionPenaltyLogitsProcessor),
        ("temperature", transformers.TemperatureLogitsWarper),
        ("top_k", transformers.TopKLogitsWarper),
        ("top_p", transformers.TopPLogitsWarper),
        ("min_p", transformers.MinPLogitsWarper),
    ):
        if name in settings:
            processors.append(kind(settings[name]))
    found = written(ours, PROMPTS, samples=2, seed=9, first=4, **settings)
    for row, (ids, log_probabilities) in enumerate(found):
        prompt = PROMPTS[row // 2]
        stream = np.random.default_rng([9, 4 + row // 2, row % 2])
        for index, (token, log_probability) in enumerate(zip(ids, log_probabilities, strict=True)):
            before = torch.tensor([[*prompt, *ids[:index]]])
            with torch.no_grad():
                logits = theirs(before).logits[:, -1]
            probabilities = processors(before, logits.clone())[0].double().softmax(-1).numpy()
            assert token == np.searchsorted(np.cumsum(probabilities), stream.random(), side="right")
            # the model's own, whatever was done to draw it
            assert log_probability == pytest.approx(float(logits.log_softmax(-1)[0, token]), abs=1e-4)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5, "repetition_penalty": 1.1}], ids=["greedy", "drawn"])
def test_a_text_does_not_depend_on_the_batch_or_on_how_many_are_drawn(pair, settings):
    _, ours = pair
    batch = tokens(ours, PROMPTS, samples=3, seed=2, **settings)
    for index, prompt in enumerate(PROMPTS):
        assert batch[3 * index : 3 * index + 3] == tokens(ours, [prompt], samples=3, seed=2, first=index, **settings)
        assert batch[3 * index : 3 * index + 1] == tokens(ours, [prompt], seed=2, first=index, **settings)


def test_the_seed_alone_says_what_is_drawn(pair):
    _, ours = pair
    first, again, other = (tokens(ours, PROMPTS, samples=2, temperature=1.5, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert first[0] != first[1]


def test_near_zero_a_temperature_is_greedy(pair):
    _, ours = pair
    assert tokens(ours, PROMPTS, temperature=1e-6) == tokens(ours, PROMPTS)
    assert tokens(ours, PROMPTS, temperature=3.0, top_k=1) == tokens(ours, PROMPTS)


def test_in_transformers_the_same_is_written(pair):
    theirs, ours = pair
    for settings in ({}, {"temperature": 1.4, "samples": 3, "top_p": 0.9}):
        for prompt in PROMPTS:
            assert tokens(theirs, [prompt], feed=TransformersFeed, **settings) == tokens(ours, [prompt], **settings)


def test_a_row_stops_when_it_is_told_to(pair):
    _, ours = pair
    whole = tokens(ours, PROMPTS)
    seen = dict.fromkeys(range(3), 0)

    def going_on(row):
        seen[row] += 1
        return seen[row] < 2 + row

    assert tokens(ours, PROMPTS, going_on=going_on) == [ids[: 2 + row] for row, ids in enumerate(whole)]


@pytest.mark.parametrize("limit", [1, 3, 10**12])
def test_text_ends_at_the_limit_or_at_the_end_of_the_context(pair, limit):
    """Each at its own end: the longest prompt leaves the least room for itself alone."""
    theirs, ours = pair
    prompts = [*PROMPTS, [9] * (CONTEXT - 1)]
    found = tokens(ours, prompts, max_new_tokens=limit)
    assert [len(ids) for ids in found] == [min(limit, CONTEXT - len(prompt)) for prompt in prompts]
    assert found == [generated(theirs, prompt, count=len(ids)) for prompt, ids in zip(prompts, found, strict=True)]


def test_prompts_without_room_are_told(pair):
    _, ours = pair
    with pytest.raises(
        RegardError, match="prompt 3 has 43 tokens, and the model takes 40, what it writes included; shorten it by 4 at"
    ):
        tokens(ours, [[1], [5] * 43], first=1)
    with pytest.raises(RegardError, match="prompt 2 is empty"):
        tokens(ours, [[1], []])


def test_weights_that_are_no_numbers_are_told(tmp_path):
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, **NO_ENDS)
    broken = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        broken.transformer.wte.weight[3, 2] = torch.nan
    broken.save_pretrained(tmp_path)
    own = load_own(tmp_path, dtype=torch.float32)
    assert own is not None
    for settings in ({}, {"temperature": 1.0}):
        with pytest.raises(RegardError, match=r"logits are no numbers \(NaN\)"):
            tokens(own[0], [[1, 2]], **settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 1, not -1"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be of type int"),
        ({"temperature": -0.1}, "temperature must be at least 0, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be a finite number, not nan"),
        ({"temperature": float("inf")}, "temperature must be a finite number, not inf"),
        ({"top_p": 0.0}, "top_p must be above 0, not 0.0"),
        ({"top_p": 1.1}, "top_p must be at most 1, not 1.1"),
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"min_p": -0.1}, "min_p must be at least 0"),
        ({"min_p": 2}, "min_p must be at most 1"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"stop": ""}, "an empty stop text"),
        ({"stop": ["a", ""]}, "an empty stop text"),
        ({"stop": 3}, "stop must be a text or a list of texts, not 3"),
        ({"stop": ["a", 3]}, "stop must be a text or a list of texts"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"temprature": 1.0}, "no setting 'temprature'; did you mean 'temperature'"),
    ],
)
def test_settings_without_sense_are_told(settings, says):
    with pytest.raises(RegardError, match=says):
        Writing.of(settings)


def test_one_stop_text_or_several_may_be_given():
    assert Writing.of({"stop": "a"}).stop == ("a",)
    assert Writing.of({"stop": ["a", "bc"]}).stop == ("a", "bc")
    assert Writing.of({"temperature": 1}).temperature == 1.0

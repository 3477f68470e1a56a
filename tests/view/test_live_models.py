"""What the live page computes is what Python computes: tokens, translations, logits, attention, the four steps."""

import os

import numpy as np
import pytest
import torch
from num2words import num2words
from tests.view.live_models import TRANSLATORS, build, module_of, translator_of

from regard.data.batch import BOS, EOS
from regard.data.numbers import split_numbers
from regard.view.steps import (
    EXAMPLE_INPUTS,
    causal_step,
    draw_parameters,
    multi_head_step,
    random_embedding,
    simple_step,
    split_tokens,
    trainable_step,
)

# all 1,500 sentences of the test split take minutes
COUNT = None if os.environ.get("REGARD_WHOLE_TEST_SPLIT") else 60
NUMBERS = split_numbers()["test"]
SENTENCES = [num2words(number, lang="en") for number in NUMBERS]
CLOSE = 1e-3


def flat(nested):
    return [value for row in nested for value in (flat(row) if isinstance(row, list) else [row])]


@pytest.mark.parametrize("name", TRANSLATORS)
def test_the_page_translates_as_python_does(live, name):
    wanted = [found.text for found in translator_of(name).translate(SENTENCES[:COUNT])]
    found = live.evaluate(
        "([name, texts]) => texts.map((text) => regard.model(name).translate(text).text)", [name, SENTENCES[:COUNT]]
    )
    same = np.mean([one == two for one, two in zip(found, wanted, strict=True)])
    print(f"{name}: {same:.2%} of {len(wanted)} translations the same")
    assert same >= 0.99


@pytest.mark.parametrize("name", TRANSLATORS)
def test_logits_and_attention_of_every_step_are_those_of_python(live, name):
    module, tokenizer = module_of(name)
    longest = max(SENTENCES[:50], key=len)
    found = live.evaluate(
        """([name, text]) => {
          const { source, ids, steps } = regard.model(name).translate(text);
          const looks = steps.map(({ weights, cross }) =>
            cross ? cross.map((layer) => layer.map((head) => [...head.weights])) : weights ? [[[...weights]]] : []);
          return { source, ids, looks, logits: steps.map(({ logits }) => [...logits].slice(2)) };
        }""",
        [name, longest],
    )
    assert found["source"] == [*tokenizer.encode(longest), EOS]
    with torch.inference_mode():
        cache = module.encode(torch.tensor([found["source"]]), torch.tensor([len(found["source"])]))
        for step, token in enumerate([BOS, *found["ids"]]):
            output = module.decode_step(torch.tensor([[token]]), cache, read=True)
            # padding and the start are never written
            np.testing.assert_allclose(found["logits"][step], output.logits[0, 0, 2:], atol=CLOSE)
            for layer, map in enumerate(output.attention):
                np.testing.assert_allclose(found["looks"][step][layer], map.weights[0, :, 0], atol=CLOSE)
            assert len(found["looks"][step]) == len(output.attention)
    assert (name == "rnn") == (found["looks"][0] == [])


def test_the_gpt_gives_the_logits_and_attention_of_python(live):
    module, tokenizer = module_of("gpt")
    text = "She had not\nbeen long in Bath — “perhaps” 3 weeks."
    found = live.evaluate(
        """(text) => {
          const model = regard.model("gpt");
          const writer = model.begin();
          const ids = [2, ...model.tokenizer.encode(text)];
          const steps = ids.map((id) => writer.step(id));
          const heads = steps.map((step) => step.heads.map((layer) => layer.map((row) => [...row])));
          return { ids, logits: steps.map(({ logits }) => [...logits]), heads };
        }""",
        text,
    )
    assert found["ids"] == [EOS, *tokenizer.encode(text)]
    with torch.inference_mode():
        output = module(torch.tensor([found["ids"]]), read=True)
    np.testing.assert_allclose(found["logits"], output.logits[0], atol=CLOSE)
    for query, layers in enumerate(found["heads"]):
        for layer, heads in enumerate(layers):
            np.testing.assert_allclose(heads, output.attention[layer].weights[0, :, query, : query + 1], atol=CLOSE)


def test_tokens_are_those_of_the_tokenizer(live):
    texts = [*SENTENCES[:20], "it's  1,984 — déjà vu\n二百零六 🙂", " lead", "<s> </s>", "e\u0301"]
    for name in ("rnn", "gpt"):
        tokenizer = module_of(name)[1]
        found = live.evaluate(
            "([name, texts]) => texts.map((text) => regard.model(name).tokenizer.encode(text))", [name, texts]
        )
        assert found == [tokenizer.encode(text) for text in texts]


def test_numbers_are_spelt_as_num2words_spells_them(live):
    numbers = [*range(1100), 80_000, 200_000, 280_000, 1_000_001, 80_000_000, 200_000_000, *NUMBERS[:300]]
    found = live.evaluate("(numbers) => numbers.map((number) => regard.spelt(number))", numbers)
    assert found == [[num2words(number, lang="en"), num2words(number, lang="fr")] for number in numbers]
    read = live.evaluate("(texts) => texts.map((text) => regard.numberOf(text))", [texts for texts, _ in found])
    assert read == numbers


@pytest.mark.parametrize("text", [None, "the cat saw the other cat", "今天天气 很好 Élan", "one", "a " * 32])
def test_the_four_steps_are_those_of_regard_attention(live, text):
    words = "Your journey starts with one step" if text is None else text
    live.evaluate("(text) => regard.self.read(text)", words)
    if text is None:
        inputs = torch.tensor(EXAMPLE_INPUTS)
    else:
        inputs = torch.stack([random_embedding(word) for word in split_tokens(words)])
    parameters = draw_parameters()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        simple, trainable = simple_step(inputs), trainable_step(inputs, parameters)
        causal, multi = causal_step(inputs, parameters), multi_head_step(inputs, parameters)
    found = live.evaluate("() => regard.self.found")
    wanted = {
        "simple": {"scores": simple.scores, "weights": simple.weights, "context": simple.context},
        "trainable": trainable._asdict(),
        "causal": {
            "weights": causal.weights,
            "context": causal.context,
            "dropped": causal.dropped,
            "trainingContext": causal.training_context,
        },
        "multi": {"joined": multi.joined, "output": multi.output},
    }
    for step, matrices in wanted.items():
        for name, matrix in matrices.items():
            np.testing.assert_allclose(flat(found[step][name]), matrix.flatten(), atol=1e-5, err_msg=f"{step} {name}")
    np.testing.assert_allclose(flat(found["multi"]["second"]["weights"]), multi.weights[1].flatten(), atol=1e-5)


def test_rounding_keeps_each_weight_within_half_a_step():
    matrix = torch.randn(7, 75, generator=torch.Generator().manual_seed(3))
    state = {"a.weight": matrix, "tied.weight": matrix, "a.bias": matrix[0]}
    rounded = build.rounded({**state, "a.bias": matrix[0].clone()})
    back = build.restored(rounded)
    assert back.keys() == {"a.weight", "a.bias"}
    assert torch.equal(back["a.bias"], matrix[0])
    for start in range(0, 75, build.GROUP):
        part = slice(start, start + build.GROUP)
        half = matrix[:, part].abs().amax(dim=1, keepdim=True) / 254
        assert ((back["a.weight"] - matrix)[:, part].abs() <= half * 1.001).all()

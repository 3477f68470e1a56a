"""Adapters and quantised weights change queries and keys, not attention: such a model is read as it runs."""

from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import regard

pytest.importorskip("transformers")

EXACT = 3e-8
IDS = torch.tensor([[5, 9, 23, 40, 9, 23, 71, 12]])


def assert_exact(reading, calls, rows):
    assert not reading.refused
    assert len(calls) == len(reading.layers()) > 0
    for call in calls:
        weights, expected = reading.weights(layer=call.layer), witness.truth(call)[0][:, rows].numpy()
        assert np.abs(weights - expected).max() <= EXACT


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("targets", [["q_proj", "k_proj"], ["v_proj", "o_proj", "up_proj"]])
def test_a_model_with_adapters_of_peft_is_read_as_it_runs(targets):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets)
    model = peft.get_peft_model(ARCHITECTURES["llama"].build("sdpa"), config).eval()
    for name, parameter in model.named_parameters():
        if "lora" in name:
            nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        plain, calls = model(IDS).logits, []
        with regard.watching(model, rows="all") as watch:
            calls = witness.capture(model, lambda: model(IDS))
            again = model(IDS).logits
        assert torch.equal(again, plain)
        assert_exact(watch.reading(call=0), calls, slice(None))
        with model.disable_adapter(), regard.watching(model, rows="all") as without:
            model(IDS)
    assert np.abs(without.reading().weights(layer=1) - watch.reading().weights(layer=1)).max() > 0.01


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_model_with_adapters_writes_is_one_sequence():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(ARCHITECTURES["llama"].build("sdpa"), config).eval()
    with regard.watching(model, rows="generated") as watch:
        written = model.generate(input_ids=IDS, do_sample=False, min_new_tokens=5, max_new_tokens=5)
    reading = watch.reading(0)
    assert [token.id for token in reading.sequences["text"].tokens] == written[0].tolist()
    with torch.no_grad():
        calls = witness.capture(model, lambda: model(written[:, :-1]))
    assert reading.rows() == [7, 8, 9, 10, 11]
    for call in calls:
        expected = witness.truth(call)[0][:, 7:].numpy()
        assert np.abs(reading.weights(layer=call.layer) - expected).max() < 5e-6


class Kernel(TorchFunctionMode):
    """The weights in float64 of what torch's fused kernel is given, in order, [head, query, key]."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            query, key = (each[0].double() for each in args[:2])
            scores = query @ key.repeat_interleave(len(query) // len(key), 0).mT * query.shape[-1] ** -0.5
            self.weights.append(scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -torch.inf).softmax(-1))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_quantised_model_is_read_as_it_runs(dtype, tiny_smollm2):
    model = regard.load(tiny_smollm2 / "models" / "smollm2", dtype=dtype)
    ids = torch.tensor([model.tokenizer.encode("One, two. Three, one.")])
    with torch.inference_mode():
        plain = model.module(ids).logits
        with regard.watching(model, rows="all") as watch, Kernel() as kernel:
            again = model.module(ids).logits
    reading = watch.reading()
    assert torch.equal(again, plain)
    assert not reading.refused
    assert len(kernel.weights) == len(reading.layers()) == 6
    for layer, weights in enumerate(kernel.weights):
        assert np.abs(reading.weights(layer=layer) - weights.numpy()).max() <= EXACT


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_what_a_quantised_model_writes_is_one_sequence(dtype, tiny_smollm2):
    model: Any = regard.load(tiny_smollm2 / "models" / "smollm2", dtype=dtype)
    plain = model.generate("One, two. Three", max_new_tokens=5)
    with regard.watching(model, rows="generated") as watch:
        written = model.generate("One, two. Three", max_new_tokens=5)
    assert written == plain
    reading = watch.reading(0)
    assert not reading.refused
    # the last token was never fed
    assert [token.id for token in reading.sequences["text"].tokens][-4:] == list(written.tokens[:4])
    assert len(reading.rows()) == 5

"""A compiled model learns what it learns uncompiled; apart from the rest, for it takes its time."""

import shutil

import pytest

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler to compile with")


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_comes_to_the_same_loss(trained):
    # without dropout, which draws other numbers
    settings = {"steps": 4, "model": {"num_layers": 1, "dropout": 0.0}, "warmup_steps": 1}
    losses = [trained("transformer", **settings, compile=compile).facts["dev_loss"] for compile in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    untrained = trained("transformer", **settings | {"steps": 1}).facts["dev_loss"]
    assert abs(untrained - losses[0]) > 1e-2 * losses[0]

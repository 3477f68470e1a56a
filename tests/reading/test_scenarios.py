"""Ways of running a model, each watched: the run is not harmed, and what is read is right in weights and names."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from benchmarks.judging import judge  # noqa: E402
from benchmarks.scenarios import NEEDS, SCENARIOS  # noqa: E402
from benchmarks.zoo import ARCHITECTURES  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore")]


ODD = [
    # proposals beyond the last token that is returned
    ("mixtral", "prompt lookup"),
    # a generate of its own, whose first run is fed a proposal too
    ("whisper", "assisted"),
    # code of its own, whose weights have columns for the room in a static cache
    ("gptj", "static cache"),
    ("trocr", "static cache"),
    # an encoder that is a plain module
    ("fsmt", "sampling"),
    # written tokens that are fed as embeddings again
    ("openai_gpt", "prompt tuning"),
    # one learned query that looks at all patches
    ("siglip", "threads"),
    # layers without softmax between those with
    ("nemotron_h", "masked step"),
    ("zamba2", "static cache"),
]


@pytest.mark.parametrize(
    ("scenario", "name"),
    [
        *((scenario, name) for scenario in SCENARIOS for name in ("llama", "gemma3", "bart", "llava")),
        *((scenario, name) for name, scenario in ODD),
    ],
)
def test_a_way_of_running_is_read_exactly_and_unharmed(scenario, name):
    architecture = ARCHITECTURES[name]
    if scenario in NEEDS:
        pytest.importorskip(NEEDS[scenario])
    with torch.no_grad():
        case = SCENARIOS[scenario](architecture, "sdpa" if "sdpa" in architecture.implementations else "eager")
        if case is None:
            pytest.skip("it is no way of running this model")
        verdict = judge(case)
    if verdict.fails:
        pytest.skip(verdict.fails)
    assert not verdict.harmed
    assert not verdict.wrong
    assert not verdict.whole
    assert not verdict.lost
    assert verdict.read

"""Ways of running a model, each watched: the run is not harmed, and what is read is right in weights and names."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from benchmarks.judging import judge  # noqa: E402
from benchmarks.scenarios import NEEDS, SCENARIOS  # noqa: E402
from benchmarks.zoo import ARCHITECTURES  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", ["llama", "gemma3", "bart", "llava"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_way_of_running_is_read_exactly_and_unharmed(scenario, name):
    if scenario in NEEDS:
        pytest.importorskip(NEEDS[scenario])
    with torch.no_grad():
        case = SCENARIOS[scenario](ARCHITECTURES[name], "sdpa")
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

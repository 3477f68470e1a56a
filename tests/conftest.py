"""Every test starts from the same seed, on one thread and without a clock: tests share their machine with others."""

import pytest
import torch
from hypothesis import settings

from regard.data import formats

settings.register_profile("regard", deadline=None, database=None)
settings.load_profile("regard")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """What tests prepare stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGARD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def nothing_told_yet():
    formats.tell_once.cache_clear()

"""What a language model keeps: written in place, never moved, and of the right sequences."""

import pytest
import torch

from regard.attention.key_values import KeyValues


def parts(new, *, batch=2, seed=0):
    torch.manual_seed(seed)
    return torch.randn(2, batch, 3, new, 4)


def test_all_that_was_added_comes_back_in_its_order():
    past, added = KeyValues(9), []
    for step, new in enumerate((4, 1, 1, 3)):
        for layer in range(2):
            added.append((layer, parts(new, seed=10 * step + layer)))
            found = past.add(layer, *added[-1][1])
            for index in range(2):
                wanted = torch.cat([each[index] for number, each in added if number == layer], dim=2)
                assert torch.equal(found[index], wanted)
        past.length += new
    assert past.length == past.room


def test_it_grows_without_copying():
    past = KeyValues(50)
    places = set()
    for step in range(50):
        # a copy would leave its old memory to what is made next
        keys, values = past.add(0, *parts(1, seed=step))
        past.length += 1
        # the first come back as they were given
        places |= {(keys.data_ptr(), values.data_ptr())} if step else set()
    assert len(places) == 1
    (place,) = places
    assert place[0] != place[1]


def test_half_precision_is_kept_whole_for_kernels_of_a_single_query():
    past, (key, value) = KeyValues(4), parts(3).bfloat16()
    assert past.add(0, key, value)[0] is key
    past.length = 3
    keys, values = past.add(0, key[:, :, :1], value[:, :, :1])
    assert keys.dtype == values.dtype == torch.float32
    assert torch.equal(keys[:, :, :3], key.float())


def test_no_more_than_its_room_goes_in():
    past = KeyValues(3)
    with pytest.raises(AssertionError):
        past.add(0, *parts(4))


@pytest.mark.parametrize("rows", [[1], [1, 0], [0, 0, 1]])
def test_selected_sequences_go_on_each_by_itself(rows):
    past = KeyValues(5, padding=torch.tensor([2, 1]))
    before = parts(3)
    past.add(0, *before)
    past.length = 3
    past.select(torch.tensor(rows))
    more = parts(2, batch=len(rows), seed=4)
    found = past.add(0, *more)
    for index in range(2):
        assert torch.equal(found[index], torch.cat([before[index][rows], more[index]], dim=2))
    assert past.padding is not None
    assert past.padding.tolist() == [[2, 1][row] for row in rows]


def test_the_longest_sequence_has_the_least_padding():
    assert KeyValues(9).longest(7) == 7
    assert KeyValues(9, padding=torch.tensor([3, 2])).longest(7) == 5

"""Settings of decoding that make no sense are refused by name."""

import dataclasses

import pytest

from regard.errors import RegardError
from regard.generation.decoding import Decoding


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1, not 0"),
        ({"num_beams": 2.5}, "num_beams must be of type int, not 2.5"),
        ({"n_best": 0}, "n_best must be at least 1, not 0"),
        ({"n_best": 5, "num_beams": 4}, "n_best 5 needs as many num_beams; it has 4"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"length_penalty": float("nan")}, "length_penalty must be a finite number, not nan"),
        ({"length_penalty": float("-inf")}, "length_penalty must be a finite number, not -inf"),
        ({"length_penalty": 10.1}, "length_penalty must be at most 10, not 10.1"),
        ({"length_penalty": -11}, "length_penalty must be at least -10, not -11.0"),
        ({"length_normalization": "wu"}, "length_normalization must be one of power, gnmt, not 'wu'"),
        ({"coverage_penalty": -0.1, "num_beams": 2}, "coverage_penalty must be at least 0, not -0.1"),
        ({"coverage_penalty": 0.2}, "coverage_penalty ranks the hypotheses of a beam search; set num_beams to 2"),
        ({"do_sample": True, "temperature": 0}, "temperature must be above 0, not 0.0"),
        ({"do_sample": True, "temperature": -1}, "temperature must be above 0, not -1.0"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature must be a finite number, not nan"),
        ({"do_sample": True, "top_k": 0}, "top_k must be at least 1, not 0"),
        ({"do_sample": True, "top_p": 0}, "top_p must be above 0, not 0.0"),
        ({"do_sample": True, "top_p": 1.01}, "top_p must be at most 1, not 1.01"),
        ({"do_sample": True, "min_p": -0.01}, "min_p must be at least 0, not -0.01"),
        ({"do_sample": True, "min_p": 2}, "min_p must be at most 1, not 2.0"),
        ({"do_sample": True, "seed": -1}, "seed must be at least 0, not -1"),
        ({"do_sample": True, "num_beams": 2}, "do_sample goes one way at a time, without num_beams"),
        ({"temperature": 0.5}, "temperature belongs to sampling; add do_sample, or leave it out"),
        ({"top_k": 3}, "top_k belongs to sampling"),
        ({"top_p": 0.9}, "top_p belongs to sampling"),
        ({"min_p": 0.1, "num_beams": 4}, "min_p belongs to sampling"),
        ({"seed": 1}, "seed belongs to sampling"),
        ({"num_beam": 4}, "decoding: has no setting 'num_beam'; did you mean 'num_beams'?"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(RegardError) as refused:
        Decoding.of(None, settings)
    assert message in str(refused.value)
    # the same if a whole object is given
    if settings.keys() <= {field.name for field in dataclasses.fields(Decoding)}:
        with pytest.raises(RegardError) as refused:
            Decoding.of(Decoding(**settings), {})
        assert message in str(refused.value)


def test_settings_go_before_those_of_the_decoding_they_are_given_with():
    decoding = Decoding(num_beams=4, length_penalty=0.6)
    assert Decoding.of(decoding, {"num_beams": 2}) == Decoding(num_beams=2, length_penalty=0.6)
    assert Decoding.of(None, {}) == Decoding()


@pytest.mark.parametrize("length", [1, 3, 20])
def test_scores_are_normalised_by_the_formulas_of_the_papers(length):
    for power in (0.0, 0.6, 1.0, -1.0):
        # Wu et al. 2016, equation 14: lp(Y) = (5 + |Y|)^α / (5 + 1)^α
        gnmt = Decoding(length_penalty=power, length_normalization="gnmt").normalizer(length)
        assert gnmt == pytest.approx((5 + length) ** power / (5 + 1) ** power)
        assert Decoding(length_penalty=power).normalizer(length) == pytest.approx(length**power)

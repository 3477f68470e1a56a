"""All exercises by name, in the order of the subject."""

from regard.exercises.exercise import Exercise
from regard.exercises.induction import INDUCTION_SCORE
from regard.exercises.positions import ROTARY
from regard.exercises.rnn import ADDITIVE_SCORE, ATTENTION_WEIGHTS, CONTEXT_VECTOR, LONGEST_SOURCE
from regard.exercises.transformer import CAUSAL_WEIGHTS, CROSS_ATTENTION, MERGE_HEADS, SCALED_SCORES

EXERCISES: dict[str, Exercise] = {
    "longest_source": LONGEST_SOURCE,
    "additive_score": ADDITIVE_SCORE,
    "attention_weights": ATTENTION_WEIGHTS,
    "context_vector": CONTEXT_VECTOR,
    "scaled_scores": SCALED_SCORES,
    "causal_weights": CAUSAL_WEIGHTS,
    "merge_heads": MERGE_HEADS,
    "cross_attention": CROSS_ATTENTION,
    "rotary": ROTARY,
    "induction_score": INDUCTION_SCORE,
}

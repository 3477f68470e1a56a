"""How large a model may be: beyond any that there is, a size is a slip of the finger."""

MOST_LAYERS = 1024
# of vectors, and of heads
LARGEST_SIZE = 1 << 20
# tokens of a sequence
LONGEST = 1 << 26

"""A map of all heads for a paper, as a vector graphic, and the numbers behind it as a table."""

import numpy as np

import regard
from regard.view.heads import by_head

model = regard.load("smollm2")
assert isinstance(model, regard.LanguageModel)
text = "The cat sat on the mat. The cat sat on the"
reading = model.read(text=text, rows="all", statistics=("induction", "entropy"))

reading.plot("heads", "heads.pdf", statistic="induction", title="Heads that continue a repetition")

scores = np.stack(by_head(reading, "decoder")["induction"])  # layer, head
for place in np.argsort(scores, axis=None)[::-1][:5]:
    layer, head = np.unravel_index(place, scores.shape)
    print(f"layer {layer:2}  head {head}  {scores[layer, head]:.3f} of its weight follows the last time the token came")
np.savetxt("heads.csv", scores, delimiter=",", fmt="%.6f")

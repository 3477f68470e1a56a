"""Which sentence of a page does an answer rest on? Hide the sentences and see."""

import regard

PAGE = """The storm took the roof of the mill in March. Ana lent the village her cart.
The new roof is made of larch, cut in the north wood. It was paid for by the sale of the old bell.
Nobody knows who rang the bell last."""

model = regard.load("smollm2")
assert isinstance(model, regard.LanguageModel)
found = model.sources(f"{PAGE}\n\nWhat is the new roof made of?", chat=True, max_new_tokens=12)

print(found.answer)
print(found.verdict.text)
for source in found[:3]:
    # what removing the sentence does to the answer's log-probability, in nats; None where that was only estimated
    effect = "not tried" if source.effect is None else f"{source.effect:9.2f}"
    print(effect, source.text.strip())

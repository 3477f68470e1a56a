"""Fine-tune a language model on a text of your own, and compare both on text that neither was trained on."""

from pathlib import Path

import regard

TRAIN = "The tide came in at {}. The keeper lit the lamp and wrote it down.\n\n"
hours = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
Path("log.txt").write_text("".join(TRAIN.format(hour) for hour in hours * 4), encoding="utf-8")
unseen = "The tide came in at midnight. The keeper lit the lamp and wrote it down."
Path("unseen.txt").write_text((unseen + "\n") * 4, encoding="utf-8")

before = regard.load("smollm2")
after = regard.train(
    "fine-tune",
    init="smollm2",
    out="runs/log",
    changes={
        "data.train": "log.txt",
        "data.dev": "unseen.txt",
        "data.test": "unseen.txt",
        "data.context_length": 32,
        "train.steps": 4,
        "train.warmup_steps": 1,
        "train.learning_rate": 1e-3,
        "train.threads": 1,
    },
)
assert isinstance(before, regard.LanguageModel)
assert isinstance(after, regard.LanguageModel)
for name, model in (("before", before), ("after", after)):
    print(f"{name:7} perplexity {model.perplexity(unseen):8.2f}  {model.generate('The tide', max_new_tokens=8).text!r}")

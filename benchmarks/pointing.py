"""The pointing game: a tiny vision-language model answers which cell is red, and where did it look?

A LLaVA-like model learns grids of 8 × 8 cells, four to eight of them coloured, each in a colour of its own. It is asked
about one colour, so that the cell that its answer rests on is known. `sources` should put that cell first.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import regard
from benchmarks import report
from benchmarks.kept import Kept, digest
from benchmarks.source_verdicts import wilson
from regard.data.download import cache_dir
from regard.language_model import LanguageModel
from regard.language_model.seen import pictured
from regard.reading.media_asked import AskedMedia
from regard.reading.media_hiding import MediaHiding
from regard.reading.media_sources import find_media_sources
from regard.reading.reading import Reading
from regard.reading.sources import SourceOptions

SIDE, CELL = 8, 8
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "yellow": (235, 210, 50),
    "purple": (130, 50, 170),
    "orange": (240, 140, 30),
    "cyan": (60, 200, 210),
    "pink": (240, 150, 190),
}
GROUND = (230, 230, 230)
CELLS = [column + row for row in "12345678" for column in "abcdefgh"]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
WORDS = [*SPECIAL, "which", "cell", "is", *COLOURS, *CELLS]
IDS = {word: number for number, word in enumerate(WORDS)}
LEAST, MOST = 4, 8
# questions about one grid while it learns, each about the next colour
QUESTIONS, BATCH = 4, 32
# a further colour comes once so many answers are right; the rate falls over the last half of all steps
STEPS, LEARNED, RATE, WARMUP = 1300, 0.8, 2e-3, 50
# patches know their places from the beginning
PLACES = 0.3
GRIDS, SEED = 200, 7
# right answers of which every cell is hidden in truth
TRUTHS = 25


class Grid(NamedTuple):
    """A picture with its coloured cells, in the order of `colours`."""

    cells: list[int]
    colours: list[str]

    def image(self) -> np.ndarray:
        found = np.full((SIDE * SIDE, 3), GROUND, dtype=np.uint8)
        found[self.cells] = [COLOURS[colour] for colour in self.colours]
        return found.reshape(SIDE, SIDE, 3).repeat(CELL, 0).repeat(CELL, 1)


def grid(random: np.random.Generator, count: int) -> Grid:
    cells = random.permutation(SIDE * SIDE)[:count].tolist()
    return Grid(cells, [list(COLOURS)[number] for number in random.permutation(len(COLOURS))[:count]])


def question(colour: str) -> str:
    return f"which cell is {colour}"


def run() -> None:
    folder = cache_dir() / "benchmarks" / "pointing"
    recipe = digest(WORDS, QUESTIONS, BATCH, STEPS, LEARNED, RATE, PLACES, SEED)
    Kept(folder).get("model", recipe, lambda: train(folder / "model"))
    figures = play(regard.load(folder / "model"), np.random.default_rng(SEED + 1))
    rows = [
        [way, f"{found} of {count} ({low:.0%}–{high:.0%})", f"{passes:.1f}"]
        for way, found, count, passes in figures["ways"]
        for low, high in [wilson(found, count)]
    ]
    report.write(
        "pointing",
        f"The pointing game: {SIDE} × {SIDE} grids, {LEAST} to {MOST} coloured cells, “which cell is red”",
        ["the strongest by", "is the asked cell", "passes"],
        rows,
        {**figures, "steps": STEPS},
        f"A LLaVA-like model of {figures['parameters']:,} parameters, trained for {STEPS:,} steps of {BATCH} grids, is "
        f"right on {figures['right']} of {GRIDS} fresh grids; on these it is asked where it looked. A patch is a "
        "cell. A pass is one run over prompt and answer, a backward pass two; `sources` hides one cell in truth. 95 % "
        "Wilson intervals.",
    )


def train(folder: Path) -> None:
    """Write a model that has learned the game into a folder."""
    torch.manual_seed(SEED)
    model = _model()
    torch.nn.init.normal_(model.model.vision_tower.embeddings.position_embedding.weight, std=PLACES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    random = np.random.default_rng(SEED)
    mean = std = 0.5
    most, share = 1, 0.0
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP, 2 * (1 - step / STEPS))
        grids = [grid(random, int(random.integers(min(QUESTIONS, most), most + 1))) for _ in range(BATCH)]
        tokens = torch.tensor([_tokens(each) for each in grids])
        pixels = torch.from_numpy(np.stack([each.image() for each in grids])).permute(0, 3, 1, 2) / 255
        logits = model(input_ids=tokens, pixel_values=(pixels - mean) / std).logits
        places = [SIDE * SIDE + 1 + 6 * number + 3 for number in range(QUESTIONS)]
        wanted, found = tokens[:, [place + 1 for place in places]], logits[:, places]
        loss = functional.cross_entropy(found.flatten(0, 1), wanted.flatten())
        share = 0.95 * share + 0.05 * float((found.argmax(-1) == wanted).float().mean())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if share > LEARNED and most < MOST:
            most, share = most + 1, 0.0
        if step % 100 == 0:
            print(f"step {step}: up to {most} colours, {share:.0%} right, loss {loss.item():.3f}", flush=True)
    model.eval().save_pretrained(folder)
    _processor().save_pretrained(folder)


def _tokens(each: Grid) -> list[int]:
    words = ["<s>", *["<image>"] * SIDE * SIDE]
    for number in range(QUESTIONS):
        place = number % len(each.cells)
        words += [*question(each.colours[place]).split(), CELLS[each.cells[place]], "</s>"]
    return [IDS[word] for word in words]


def _model() -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=3,
        image_size=SIDE * CELL,
        patch_size=CELL,
    )
    text = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        # with the usual 0.02 so small a model learns nothing for a long time
        initializer_range=0.08,
        tie_word_embeddings=False,
        pad_token_id=IDS["<pad>"],
        bos_token_id=IDS["<s>"],
        eos_token_id=IDS["</s>"],
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IDS["<image>"],
        # before the vision model attends, which moves what is in a cell to other patches
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return transformers.LlavaForConditionalGeneration(config)


def _processor() -> Any:
    backend = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size = {"height": SIDE * CELL, "width": SIDE * CELL}
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE * CELL}, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return transformers.LlavaProcessor(
        images,
        words,
        patch_size=CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def play(model: LanguageModel, random: np.random.Generator) -> dict[str, Any]:
    """How often each way points at the asked cell, of the grids on which the model is right."""
    found: dict[str, list[tuple[bool, float]]] = {}
    right = 0
    for each in (grid(random, int(random.integers(LEAST, MOST + 1))) for _ in range(GRIDS)):
        prompt, image = f"<s> <image> {question(each.colours[0])}", Image.fromarray(each.image())
        reading = model.read(prompt, images=[image], max_new_tokens=1, rows="generated")
        if reading.tokens["text"][-1].strip() != CELLS[each.cells[0]]:
            continue
        right += 1
        asked = pictured(model, prompt, images=[image]).asking(model, [IDS[CELLS[each.cells[0]]]])
        for way, cell, passes in _ways(reading, asked):
            found.setdefault(way, []).append((cell == each.cells[0], passes))
        if right <= TRUTHS:
            found.setdefault("hiding every cell in truth", []).append((_strongest(asked) == each.cells[0], 65))
    return {
        "parameters": sum(each.numel() for each in model.module.parameters()),
        "right": right,
        "ways": [
            (way, sum(hit for hit, _ in tries), len(tries), float(np.mean([passes for _, passes in tries])))
            for way, tries in found.items()
        ],
    }


def _ways(reading: Reading, asked: AskedMedia) -> Iterator[tuple[str, int, float]]:
    """The cell that each way puts first, and its cost in passes."""
    sources = find_media_sources(asked, SourceOptions(confirm=1))
    yield "`sources`", _cell(sources[0].area), sources.passes
    yield "its bounds alone", _cell(min(sources, key=lambda each: each.bound).area), 3.0
    weights = reading.weights("decoder")[:, :, -1]
    areas = {position: _cell(token.area) for position, token in enumerate(reading.keys("decoder")) if token.area}
    for way, row in (
        ("mean of all heads", weights.mean((0, 1))),
        ("mean of the last layer's heads", weights[-1].mean(0)),
        ("largest weight of any head", weights.max((0, 1))),
    ):
        yield way, areas[max(areas, key=lambda position, row=row: row[position])], 1.0


@torch.inference_mode()
def _strongest(asked: AskedMedia) -> int:
    """The cell without which the answer is least likely."""
    found = []
    for position, token in enumerate(asked.keys):
        if token.area is not None:
            with MediaHiding(asked.attends, [position], asked.length).watched():
                found.append((float(asked.run().sum()), _cell(token.area)))
    return min(found)[1]


def _cell(area: Any) -> int:
    return int(area.top + CELL / 2) // CELL * SIDE + int(area.left + CELL / 2) // CELL


if __name__ == "__main__":
    run()

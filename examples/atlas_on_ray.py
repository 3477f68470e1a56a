"""What does every head do over many texts? By two workers of Ray, each of which needs a processor."""

import subprocess
import sys
from pathlib import Path

import regard

PEOPLE, THINGS = ["Ana", "Boris", "Chen"], ["lamp", "rope", "bell", "kettle"]
texts = [
    f"{person} lent {other} the {thing}. Then {other} gave the {thing} back to {person}."
    for person in PEOPLE
    for other in PEOPLE
    for thing in THINGS
    if person != other
]
Path("texts.txt").write_text("\n".join(texts), encoding="utf-8")
command = [sys.executable, "-m", "regard", "atlas", "smollm2", "texts.txt", "--out", "atlas", "--shard-size", "6"]
subprocess.run([*command, "--engine", "ray", "--workers", "2"], check=True)

atlas = regard.Atlas.load("atlas/atlas.safetensors")
print(atlas)
for measure in ("prefix_matching", "previous_token", "first_token"):
    low, high = atlas.interval(measure)
    for layer, head in atlas.heads(measure, 3):
        place = atlas.layers.index(layer), head
        print(f"{measure} {layer}.{head}: {atlas.mean(measure)[place]:.2f} ({low[place]:.2f} to {high[place]:.2f})")
atlas.plot("previous_token", "previous.png")

"""What a pretrained model that hears is given of a sound, and how its transcript begins and ends.

A feature extractor is transformers' own, made of the folder's settings; no code in the folder is run.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from regard.config import suggest
from regard.data.sound import MOST_SECONDS, Waveform
from regard.errors import RegardError
from regard.models.pretrained.folder import GENERATION_CONFIG, read_json
from regard.models.pretrained.needs import quiet, told

# transformers' arguments of a sound
SOUND = ("input_features", "input_values")
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
# of generation_config.json, what decoding speech needs beside the ids that every model has
LISTS = ("suppress_tokens", "begin_suppress_tokens", "alignment_heads")
TABLES = ("lang_to_id", "task_to_id")
IDS = ("no_timestamps_token_id", "prev_sot_token_id", "max_initial_timestamp_index", "max_length")
FLAGS = ("is_multilingual",)
# the shortest sound that has a frame, in seconds
SHORTEST = 0.025

logger = logging.getLogger("regard")


@dataclass(frozen=True, eq=False)
class Listening:
    """How the model `name` hears: its feature extractor, and what generation_config.json says of speech."""

    module: Any
    extractor: Any
    name: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> int:
        return self.extractor.sampling_rate

    @property
    def most_seconds(self) -> float:
        """The longest sound that is heard whole."""
        return float(getattr(self.extractor, "chunk_length", None) or MOST_SECONDS)

    @property
    def max_length(self) -> int:
        """How many tokens its decoder takes."""
        config = self.module.config
        names = ("max_target_positions", "max_position_embeddings")
        return next((size for name in names if isinstance(size := getattr(config, name, None), int)), 448)

    def features(self, sounds: Sequence[Waveform]) -> dict[str, Tensor]:
        """The model's arguments for these sounds. Raises RegardError for one that is too short for a frame."""
        for sound in sounds:
            if sound.seconds < SHORTEST:
                raise RegardError(f"{sound.name}: {sound.seconds:.3f} s are too short: a frame takes {SHORTEST} s")
        with quiet(), told(f"{self.name}: its feature extractor fails"):
            samples = [sound.samples for sound in sounds]
            found = self.extractor(samples, sampling_rate=self.rate, return_tensors="pt")
        weight = next(self.module.parameters())
        return {name: found[name].to(weight.device, weight.dtype) for name in SOUND if name in found}

    def prefix(self, language: str | None, task: str | None) -> tuple[list[int], bool]:
        """The tokens that a transcript begins with, and whether the model is to choose a language after the first.

        Raises RegardError for a language or task that the model does not know.
        """
        ids, start = self.module.generation_config, self.module.generation_config.decoder_start_token_id
        languages, tasks = self.facts.get("lang_to_id", {}), self.facts.get("task_to_id", {})
        for what, value, known in (("language", language, languages), ("task", task, tasks)):
            if value is not None and not known:
                raise RegardError(f"{self.name} knows one {what}; leave out {what}")
        if task is not None and task not in tasks:
            raise RegardError(f"{self.name} knows no task {task!r}{suggest(task, list(tasks))}")
        found = [start]
        if languages:
            own = {name.strip("<|>"): id for name, id in languages.items()}
            if language is not None and language not in own:
                raise RegardError(f"{self.name} knows no language {language!r}{suggest(language, list(own))}")
            found += [] if language is None else [own[language]]
        elif ids.forced_bos_token_id is not None:
            found.append(ids.forced_bos_token_id)
        rest = [tasks[task or "transcribe"]] if tasks else []
        rest += [self.facts["no_timestamps_token_id"]] if "no_timestamps_token_id" in self.facts else []
        return found + rest, bool(languages) and language is None

    @property
    def languages(self) -> list[int]:
        return list(self.facts.get("lang_to_id", {}).values())

    @property
    def ends(self) -> frozenset[int]:
        ends = self.module.generation_config.eos_token_id
        return frozenset([ends] if isinstance(ends, int) else ends or ())


def hears(module: Any) -> bool:
    """Whether a module of transformers is given a sound and no text."""
    return getattr(module, "main_input_name", None) in SOUND


def listening_of(module: Any, folder: Path | None, given: Any, name: str) -> Listening:
    """How a model hears, by the feature extractor or processor that is `given`, or else by that of its folder.

    Raises RegardError where there is none, or none that can be used.
    """
    if given is not None:
        config = getattr(module, "generation_config", None)
        facts = {} if config is None else _checked(vars(config), name)
        return Listening(module, getattr(given, "feature_extractor", given), name, facts)
    if folder is None:
        raise RegardError(f"{name} has nothing that prepares its sounds: give the model's processor=")
    extractor, facts = _extractor(folder), _facts(folder)
    if transcribes(module):
        # so that the module's own generate knows them too
        for fact, value in facts.items():
            setattr(module.generation_config, fact, value)
    return Listening(module, extractor, name, facts)


def _extractor(folder: Path) -> Any:
    from transformers import AutoFeatureExtractor

    paths = [folder / each for each in PREPROCESSORS if (folder / each).is_file()]
    if not paths:
        raise RegardError(f"{folder}: it has no {PREPROCESSORS[0]}, which says how sounds are prepared; fetch it too")
    for path in paths:
        if "auto_map" in read_json(path):
            raise RegardError(f"{path}: auto_map asks to run code that came with the model, which Regard never does")
    with quiet(), told(f"{folder}: transformers cannot make its feature extractor"):
        return AutoFeatureExtractor.from_pretrained(str(folder), local_files_only=True)


def transcribes(module: Any) -> bool:
    """Whether a module that hears writes the text of a sound, and is given nothing else."""
    return bool(getattr(module.config, "is_encoder_decoder", False)) and bool(module.can_generate())


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / GENERATION_CONFIG
    return _checked(read_json(path), str(path)) if path.is_file() else {}


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {name: values[name] for name in (*LISTS, *TABLES, *IDS, *FLAGS) if values.get(name) is not None}
    for name, value in found.items():
        numbers: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if name == "alignment_heads":
            pairs = [pair if isinstance(pair, list) and len(pair) == 2 else [None] for pair in numbers]
            numbers = [number for pair in pairs for number in pair]
        sort = dict if name in TABLES else list if name in LISTS else bool if name in FLAGS else int
        if type(value) is not sort or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise RegardError(f"{where}: {name} must hold numbers, of tokens or of layers and heads; fetch it again")
    return found

"""The processor of a Hugging Face folder, which prepares pictures and their text as its model was trained to see them.

It is transformers' own, made from the folder's settings; no code of the folder is run. Videos are not prepared here,
so that what only they need, such as torchvision, need not be installed.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from regard.errors import RegardError
from regard.models.pretrained.folder import CONFIG, TOKENIZER_CONFIG, read_json
from regard.models.pretrained.needs import quiet, told
from regard.models.pretrained.tiles import Prepare, Tile, tiles_of

PROCESSOR = "processor_config.json"
PREPROCESSOR = "preprocessor_config.json"
# sizes of pictures whose tiles are remembered
MOST_TILINGS = 64
# processors that put what stands for a picture before its text themselves
PUT_FIRST = ("Blip2Processor", "InstructBlipProcessor", "Kosmos2Processor")
# what a model of transformers takes, by the names of its arguments
ARGUMENTS = {
    "text": ("input_ids", "decoder_input_ids"),
    "images": ("pixel_values", "flattened_patches"),
    "audio": ("input_features", "input_values"),
}


def takes(module: Any) -> frozenset[str]:
    """Which of text, images and audio a module takes: of a dual encoder all that one of its towers does."""
    names = inspect.signature(module.forward).parameters
    found = {sort for sort, arguments in ARGUMENTS.items() if any(name in names for name in arguments)}
    # what decodes a picture is given its own words alone
    if getattr(module, "main_input_name", None) != "input_ids" and "input_ids" not in names and not _writes(module):
        found.discard("text")
    return frozenset(found) or frozenset({"text"})


def _writes(module: Any) -> bool:
    return bool(getattr(module, "can_generate", lambda: False)())


def is_dual(module: Any) -> bool:
    """Whether a module compares texts with pictures, and has a model of its own for each, such as CLIP."""
    return not _writes(module) and all(hasattr(module, name) for name in ("text_model", "vision_model"))


def text_of(module: Any) -> Any:
    """What of a module reads a text alone."""
    return module.text_model if is_dual(module) else module


def vision_of(module: Any) -> Any:
    """What of a module sees pictures alone."""
    return module.vision_model if is_dual(module) else module


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a processor makes of a text and pictures: `inputs` for the model, with ids where there is a text.

    `text` is what its tokenizer was given, placeholders written out, and `offsets` where each id stands in it.
    """

    inputs: dict[str, Any]
    text: str = ""
    offsets: tuple[tuple[int, int], ...] = ()

    @property
    def ids(self) -> list[int]:
        return self.inputs["input_ids"][0].tolist() if "input_ids" in self.inputs else []


@final
class Processor:
    """What prepares the inputs of the model `name`: a processor of text and pictures, or of pictures alone."""

    def __init__(self, backend: Any, name: str) -> None:
        self.backend, self.name = backend, name
        self._tiles: dict[tuple[Any, ...], list[Tile | None]] = {}

    @classmethod
    def load(cls, folder: Path, module: Any, name: str) -> "Processor":
        """Raises RegardError where the folder has none, or one that runs code of its own."""
        from transformers import AutoImageProcessor

        for file in (PROCESSOR, PREPROCESSOR):
            if (folder / file).is_file() and "auto_map" in read_json(folder / file):
                raise RegardError(
                    f"{folder / file}: auto_map asks to run code that came with the model, which Regard never does"
                )
        if not any((folder / file).is_file() for file in (PROCESSOR, PREPROCESSOR)):
            raise RegardError(
                f"{folder}: it has no {PREPROCESSOR}, so that it is not known how its model is given pictures; fetch "
                "the whole folder of the model"
            )
        kind = _class_of(folder, module)
        with quiet(), told(f"{folder}: transformers cannot make its processor"):
            if kind is None:
                return cls(AutoImageProcessor.from_pretrained(str(folder), **_LOCAL), name)
            return cls(_made(kind, folder), name)

    @property
    def images(self) -> Any:
        """What prepares pictures alone."""
        return getattr(self.backend, "image_processor", self.backend)

    @property
    def tokenizer(self) -> Any:
        return getattr(self.backend, "tokenizer", None)

    @property
    def chat_template(self) -> Any:
        return getattr(self.backend, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)

    @property
    def image_token(self) -> str | None:
        """How a text says where a picture stands; None where the processor itself puts it first."""
        if type(self.backend).__name__ in PUT_FIRST:
            return None
        token = getattr(self.backend, "image_token", None)
        # Gemma 3 marks where a picture begins
        token = getattr(self.backend, "boi_token", None) or token
        token = getattr(token, "content", token)
        return token if isinstance(token, str) else None

    def tiles(self, sizes: Sequence[tuple[int, int]], prepare: Prepare) -> list[Tile | None]:
        """`tiles_of` pictures of these sizes, looked for once for the settings that it has."""
        key = (*sizes, self.images.to_json_string())
        if key not in self._tiles:
            if len(self._tiles) == MOST_TILINGS:
                self._tiles.clear()
            self._tiles[key] = tiles_of(prepare, sizes, self.images)
        return self._tiles[key]

    def prepare(self, text: str | None, images: Sequence[Any], *, adds_special: bool = True) -> Prepared:
        """A text, or none, and pictures. Raises RegardError where the processor fails."""
        with quiet(), told(f"{self.name}: its processor fails"):
            if text is None or self.tokenizer is None:
                found = self.images(images=list(images), return_tensors="pt")
                return Prepared(dict(found))
            recording = _Recording(self.tokenizer)
            backend = copy.copy(self.backend)
            backend.tokenizer = recording
            found = backend(
                text=[text],
                **({"images": list(images)} if images else {}),
                add_special_tokens=adds_special,
                return_tensors="pt",
            )
        text, offsets = recording.joined(found["input_ids"][0].tolist(), self.name)
        # to learn from, not to read
        found.pop("labels", None)
        return Prepared(dict(found), text, offsets)


_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def _class_of(folder: Path, module: Any) -> Any:
    """The class of the folder's processor of text and pictures; None where pictures are prepared alone."""
    import transformers
    from transformers.models.auto import processing_auto

    names = [
        read_json(folder / file).get("processor_class")
        for file in (PROCESSOR, PREPROCESSOR, TOKENIZER_CONFIG)
        if (folder / file).is_file()
    ]
    by_family: Any = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"]
    names.append(by_family.get(read_json(folder / CONFIG).get("model_type", "")))
    name = next((name for name in names if isinstance(name, str)), None)
    if name is None or "input_ids" not in inspect.signature(module.forward).parameters:
        return None
    kind = getattr(transformers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.ProcessorMixin):
        raise RegardError(f"{folder}: transformers {transformers.__version__} has no processor {name!r}")
    return kind


def _made(kind: Any, folder: Path) -> Any:
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

    loaders = {
        "tokenizer": AutoTokenizer,
        "image_processor": AutoImageProcessor,
        "feature_extractor": AutoFeatureExtractor,
        "audio_processor": AutoFeatureExtractor,
    }
    parts = kind.get_attributes()
    # videos are not prepared, and what prepares them may need torchvision
    if "video_processor" not in parts:
        return kind.from_pretrained(str(folder), **_LOCAL)
    settings, _ = kind.get_processor_dict(str(folder), **_LOCAL)
    given = [loaders[part].from_pretrained(str(folder), **_LOCAL) if part in loaders else None for part in parts]
    return lenient(kind).from_args_and_dict(given, settings)


def lenient(kind: Any) -> Any:
    """A class of processors of which a part may be missing."""
    return type(kind.__name__, (_Lenient, kind), {"__init__": kind.__init__})


class _Lenient:
    """A processor of which a part may be None."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        above: Any = super()
        return None if argument is None else above.check_argument_for_proper_class(argument_name, argument)


@final
class _Recording:
    """A tokenizer that keeps the texts that it was given, their ids, and where these stand."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._calls: list[tuple[str, list[int], list[tuple[int, int]]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Any, **settings: Any) -> Any:
        found = self._tokenizer(text, **{**settings, "return_offsets_mapping": True})
        offsets, ids = found.pop("offset_mapping"), found["input_ids"]
        if not isinstance(text, str):
            text, ids, offsets = text[0], ids[0], offsets[0]
        self._calls.append((text, [int(id) for id in ids], [(int(start), int(end)) for start, end in offsets]))
        return found

    def joined(self, ids: list[int], name: str) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The text of these ids and where each stands. Raises RegardError where they are not those that it gave."""
        # the last, or what stands for a picture beside its text, whichever came first
        for calls in (self._calls[-1:], self._calls, self._calls[::-1]):
            if [id for _, own, _ in calls for id in own] != ids:
                continue
            text, offsets = "", []
            for part, _, spans in calls:
                offsets += [(len(text) + start, len(text) + end) for start, end in spans]
                text += part
            return text, tuple(offsets)
        raise RegardError(f"{name}: its processor changes tokens after they are made, so that its text is not known")

"""What a model takes, told before it is given anything else."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError
from regard.models.pretrained.processors import Processor

if TYPE_CHECKING:
    from regard.language_model import LanguageModel

# how each is given, in Python and on the command line
GIVEN = {
    "text": "a text: prompt= or text= (--prompt, --text)",
    "images": "images: images=[…] (--image FILE)",
    "audio": "audio: audio=[…] (--audio FILE)",
}


def check_takes(model: "LanguageModel", sort: str) -> None:
    """Raises RegardError for a model that takes no such input, and says what it takes."""
    if sort not in model.takes:
        wanted = " and ".join(GIVEN[each] for each in GIVEN if each in model.takes)
        raise RegardError(f"{model.name} is a {type(model.module).__name__}, which takes no {sort}; give it {wanted}")


def processor_of(module: Any, folder: Path | None, given: Any, name: str) -> Processor:
    """The processor that is given, or the one of the model's folder. Raises RegardError where there is none."""
    if given is not None:
        return Processor(given, name)
    if folder is None:
        raise RegardError(f"{name} has no processor that prepares its pictures or sounds: give the model's processor=")
    return Processor.load(folder, module, name)

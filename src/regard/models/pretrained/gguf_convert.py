"""A GGUF file becomes a Hugging Face folder in the user's cache, once.

What the file says of itself is checked here; its values are unpacked by other people's code in a process of its own,
with a limit on its memory and its time. `python -m regard.models.pretrained.gguf_convert FILE FOLDER` is that process.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

from regard.data.download import cache_dir, file_sha256
from regard.errors import RegardError
from regard.files import new_file, new_folder
from regard.models.pretrained.gguf_head import GGUFHead, read_head
from regard.models.pretrained.gguf_model import read_config, read_parts, read_weights
from regard.models.pretrained.gguf_tokenizer import check_tokenizer, special_ids, write_tokenizer
from regard.models.pretrained.needs import check_installed

# of the conversion: what another version made is made anew
VERSION = 1
FACTS = "regard.json"
SECONDS = 120
BYTES_PER_SECOND = 1_000_000
# for Python and its libraries, and for the values: as they are, in order, and on their way to the disk
LEAST_MEMORY = 8 << 30
MEMORY_PER_VALUE = 4 * 4

logger = logging.getLogger("regard")


def convert_gguf(path: Path) -> Path:
    """The folder that a file, or the first of its parts, became, now or before.

    Raises RegardError, and leaves no folder, for a file that is damaged, or of another family, or that takes more time
    or memory than one of its size may.
    """
    check_installed()
    # the head first: what is no model is told before it is read whole
    paths = check_gguf(path).paths
    sums = [file_sha256(each) for each in paths]
    name = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
    folder = cache_dir() / "models" / f"gguf-{name}"
    if not is_converted(folder):
        with new_folder(folder) as temporary:
            convert_into(temporary, path)
    return folder


def check_gguf(path: Path) -> GGUFHead:
    """Raises RegardError for a file that cannot be converted."""
    head = read_head(path)
    config = read_config(head)
    read_parts(head, config)
    check_tokenizer(head, config["vocab_size"])
    return head


def is_converted(folder: Path) -> bool:
    """Whether the folder was made by this version; it is made whole or not at all."""
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))["version"] == VERSION
    except (OSError, ValueError, LookupError, TypeError):
        return False


def convert_into(folder: Path, path: Path) -> None:
    """Write what a GGUF file becomes into an empty folder. Raises RegardError."""
    check_gguf(path)
    logger.info("converting %s", path)
    _run_apart(path, folder)
    mark_converted(folder, path)


def mark_converted(folder: Path, path: Path) -> None:
    """Note in the folder that this version made it of the file."""
    facts = {"version": VERSION, "made_from": path.name}
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _run_apart(path: Path, folder: Path) -> None:
    seconds = SECONDS + sum(each.stat().st_size for each in read_head(path).paths) / BYTES_PER_SECOND
    # ours is the working directory of whoever calls, whose files must not be imported by chance
    command = [sys.executable, "-P", "-m", "regard.models.pretrained.gguf_convert", os.path.realpath(path), str(folder)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise RegardError(f"{path}: not converted in {seconds:.0f} s; fetch it again, or try again later") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RegardError(f"{path}: cannot be converted: {reason}")


def _convert(path: Path, folder: Path) -> None:
    from safetensors.numpy import save_file

    head = check_gguf(path)
    _limit_memory(LEAST_MEMORY + MEMORY_PER_VALUE * sum(math.prod(each.shape) for each in head.tensors.values()))
    config = read_config(head)
    write_tokenizer(head, folder)
    ids = special_ids(head)
    for name, values in (("config.json", config | ids), ("generation_config.json", ids)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    weights = dict(read_weights(head, read_parts(head, config)))
    with new_file(folder / "model.safetensors") as partial:
        save_file(weights, partial, metadata={"format": "pt"})


def _limit_memory(size: int) -> None:
    # Windows knows no such limit, macOS may refuse it; the limits on the file's sizes and on time hold everywhere
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))

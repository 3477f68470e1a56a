"""A model of the Hugging Face hub, fetched into Hugging Face's own cache (HF_HOME); code and pickles stay there."""

import re
from pathlib import Path

from regard.errors import RegardError
from regard.models.pretrained.needs import LONGEST_REASON, check_installed, quiet

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja"]
# for the first answer; what has begun to come may take its time
SECONDS = 5


def fetch_model(name: str) -> Path:
    """The folder of the model in the local cache, brought up to date where there is a network.

    Raises RegardError where it is neither in the cache nor to be had.
    """
    check_installed()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    remedy = "fetch its folder elsewhere and give its path, or set HF_HOME to a cache that holds it"
    try:
        with quiet():
            return Path(snapshot_download(name, allow_patterns=PATTERNS, etag_timeout=SECONDS))
    except GatedRepoError:
        raise RegardError(f"{name}: the hub gives it only to those who asked; log in with `hf auth login`") from None
    except RepositoryNotFoundError:
        raise RegardError(f"{name}: the Hugging Face hub has no such model, or not for you; check the name") from None
    except LocalEntryNotFoundError:
        raise RegardError(
            f"{name}: no such folder here, not in the local cache of Hugging Face, and its hub cannot be "
            f"reached; {remedy}"
        ) from None
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise RegardError(f"{name}: cannot be fetched ({reason}); {remedy}") from None

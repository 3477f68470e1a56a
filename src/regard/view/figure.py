"""Figures without matplotlib's global state: the same picture gives the same file, and no reader sees half of one."""

import contextlib
import functools
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from regard.errors import RegardError
from regard.files import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = logging.getLogger("regard")

# a date in a file would make every copy different
UNDATED = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
DOTS_PER_INCH = 200
SCREEN_DOTS_PER_INCH = 110
INK, FAINT = "#333333", "#767676"
STYLE = {
    # words are shown as they are: a price in dollars is no formula
    "text.parse_math": False,
    "svg.hashsalt": "regard",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9,
}
# the first cover Han, and kana and hangul too; then those of single scripts, and of many
FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "Source Han Sans",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "SimHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Noto Sans Thai",
    "Noto Sans Lao",
    "Noto Sans Khmer",
    "Noto Sans Myanmar",
    "Noto Sans Tibetan",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Leelawadee UI",
    "Myanmar Text",
    "Arial Unicode MS",
    "Unifont",
)


def check_path(path: str | Path | None) -> Path | None:
    """Raises RegardError if the suffix names no kind of picture, or nothing is installed that draws it.

    Ask before work whose result is to be drawn. A picture that is not kept has no path.
    """
    path = None if path is None else Path(path)
    if path is not None and path.suffix.lower() not in UNDATED:
        raise RegardError(f"{path}: a picture ends in {', '.join(UNDATED)}; rename it")
    if importlib.util.find_spec("matplotlib") is None:
        raise RegardError("pictures need matplotlib; pip install 'regard[plot]'")
    return path


@contextlib.contextmanager
def drawing(texts: Iterable[str]) -> Iterator["Figure"]:
    """An empty figure in our style, with fonts for `texts`; draw and `save` it inside."""
    import matplotlib.style

    style = STYLE | {"font.family": _fonts(frozenset("".join(texts)))}
    with matplotlib.style.context(["default", style]), _missing_letters_told_before():
        yield _picture()()


@contextlib.contextmanager
def _missing_letters_told_before() -> Iterator[None]:
    """Without matplotlib's words on each letter that no font has: _fonts tells of them once, and with the remedy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@functools.lru_cache(maxsize=1)
def _picture() -> type["Figure"]:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows, whatever its backend."""

        def _repr_png_(self) -> bytes:
            data = io.BytesIO()
            with _missing_letters_told_before():
                self.savefig(data, format="png", dpi=SCREEN_DOTS_PER_INCH, bbox_inches="tight", pad_inches=0.1)
            return data.getvalue()

    return Picture


def save(figure: "Figure", path: Path | None) -> None:
    """Write the figure, if it has a path, as its suffix says. Raises RegardError if that cannot be done."""
    if path is None:
        return
    kind = path.suffix.lower()
    data = io.BytesIO()
    figure.savefig(
        data, format=kind[1:], dpi=DOTS_PER_INCH, metadata=UNDATED[kind], bbox_inches="tight", pad_inches=0.1
    )
    with new_file(path) as partial:
        partial.write_bytes(data.getvalue())


@functools.lru_cache(maxsize=1)
def _installed_fonts() -> dict[str, str]:
    from matplotlib.font_manager import fontManager

    # last, and so the one that is kept of a font's faces: the upright one of plain weight, in which letters are drawn
    faces = sorted(fontManager.ttflist, key=lambda font: (font.style == "normal", font.weight in (400, "normal")))
    return {font.name: font.fname for font in faces}


def _fonts(letters: frozenset[str]) -> list[str]:
    from matplotlib.font_manager import get_font

    installed = _installed_fonts()
    chosen = ["DejaVu Sans"]
    missing = {letter for letter in letters if not letter.isspace()}
    for name in (*chosen, *FALLBACK_FONTS):
        if missing and name in installed:
            covered = {letter for letter in missing if get_font(installed[name]).get_char_index(ord(letter))}
            missing -= covered
            if covered and name not in chosen:
                chosen.append(name)
    if missing:
        LOG.warning(
            "no installed font has %s; the picture shows boxes instead. Install Noto Sans CJK for Chinese, "
            "Japanese and Korean (Debian: fonts-noto-cjk), or Noto Sans of the script (fonts-noto-core)",
            " ".join(sorted(missing)[:8]) + (" …" if len(missing) > 8 else ""),
        )
    return chosen

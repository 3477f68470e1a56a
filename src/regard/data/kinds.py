"""What a file is that is not read as text, by its first bytes or its name, and how its text is had all the same."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from regard.errors import RegardError

# what a file is read for: lines to translate, sentence pairs, or documents to learn a language from
Task = Literal["lines", "pairs", "documents"]
# as many bytes as tell every kind: the mark of a tar archive is in its first block
HEAD = 512


class Kind(NamedTuple):
    """What a file is called, and what to do where pairs are wanted and where plain text is."""

    name: str
    for_pairs: str
    for_text: str


SAVE_TABLE = "save its table, a source and its translation in each row, as CSV (UTF-8)"
SAVE_TEXT = "save it as plain text (UTF-8)"
WORD = Kind("a Word document", SAVE_TABLE, SAVE_TEXT)
OPEN_DOCUMENT = Kind("an OpenDocument file", SAVE_TABLE, SAVE_TEXT)
SPREADSHEET = Kind("a spreadsheet", "save the sheet as CSV (UTF-8)", "save the sheet as CSV (UTF-8)")
SLIDES = Kind(
    "a presentation", "copy its sentences into a table and save that as CSV", "save its outline as plain text"
)
BOOK = Kind("an e-book (EPUB)", "align its sentences with their translations first", "`pandoc book.epub -t plain`")
OLD_OFFICE = Kind("an old Word or Excel file", f"open it and {SAVE_TABLE}", f"open it and {SAVE_TEXT}")
PDF = Kind(
    "a PDF",
    "a PDF holds pages, not pairs: copy source and translation into a table and save that as CSV",
    "`pdftotext` makes text of it",
)
TAR = Kind("a tar archive", "unpack it (tar xf) and name the files in it", "unpack it (tar xf) and name its folder")
ARCHIVE = Kind("an archive", "unpack it and name the files in it", "unpack it and name the files in it")
UNPACK = "decompress it, or compress it as gzip, xz, bz2 or zst instead"
COMPRESSED = Kind("compressed in a way that is not read", UNPACK, UNPACK)
SQL = 'sqlite3 -header -csv FILE "SELECT {} FROM …" > {}.csv'
DATABASE = Kind(
    "an SQLite database",
    f"write the pairs as CSV: {SQL.format('source, target', 'pairs')}",
    f"write the texts as CSV: {SQL.format('text', 'texts')}",
)
PICKLE = Kind(
    "a Python pickle, which could run any code",
    "write JSON lines where it was made",
    "write JSON lines where it was made",
)
WEIGHTS = Kind("a file of model weights or numbers, not of text", "name the text itself", "name the text itself")
MEDIA = Kind("a picture, a sound or a video, not text", "name the text itself", "name the text itself")
PARQUET = Kind("a Parquet file", "let its name end in .parquet", "let its name end in .parquet")
ARROW = Kind("an Arrow file", "let its name end in .arrow", "let its name end in .arrow")
TMX = Kind("a translation memory (TMX)", "let its name end in .tmx", "let its name end in .tmx")
EXPORT = "export it as TMX from the tool that made it"
XLIFF = Kind("an XLIFF file", EXPORT, "save its text alone")
GETTEXT = Kind("a gettext catalogue", "make a TMX of it: po2tmx of the Translate Toolkit does", "save its text alone")
SUBTITLES = Kind(
    "a file of subtitles",
    "align its lines with their translations first, and save the pairs as TSV",
    "save its text without the times",
)
YAML = Kind("a YAML file", "save its pairs as JSON lines", "save its text alone")
TAGGED = Kind("XML or SGML", "save its pairs as CSV or TSV, without the tags", "save its text without the tags")
MARKUP = Kind("HTML or XML, not plain text", "save the text of the page alone", "save the text of the page alone")
JSON = Kind(
    "JSON",
    "let its name end in .jsonl (an object on each line) or .json (a list of objects)",
    "let its name end in .jsonl (an object on each line) or .json (a list of objects)",
)

# where the bytes are, the bytes, what they tell
MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"%PDF-", PDF),
    (0, b"{\\rtf", WORD._replace(name="a Rich Text document")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OLD_OFFICE),
    (0, b"SQLite format 3\0", DATABASE),
    (0, b"7z\xbc\xaf\x27\x1c", ARCHIVE),
    (0, b"Rar!\x1a\x07", ARCHIVE),
    (257, b"ustar", TAR),
    (0, b"\x1f\x9d", COMPRESSED),
    (0, b"LZIP\x01", COMPRESSED),
    (0, b"\x04\x22\x4d\x18", COMPRESSED),
    (0, b"PAR1", PARQUET),
    (0, b"ARROW1", ARROW),
    (0, b"\xff\xff\xff\xff", ARROW),
    (0, b"\xde\x12\x04\x95", GETTEXT),
    (0, b"\x95\x04\x12\xde", GETTEXT),
    (0, b"\x93NUMPY", WEIGHTS),
    (0, b"\x89HDF\r\n\x1a\n", WEIGHTS),
    (0, b"GGUF", WEIGHTS),
    (0, b"\x89PNG", MEDIA),
    (0, b"\xff\xd8\xff", MEDIA),
    (0, b"GIF8", MEDIA),
    (0, b"OggS", MEDIA),
    (0, b"fLaC", MEDIA),
    (0, b"ID3", MEDIA),
    (0, b"RIFF", MEDIA),
    (4, b"ftyp", MEDIA),
)
# protocols 2 to 5 begin with a byte that begins no text; protocol 0 is ASCII
PICKLED = re.compile(rb"\x80[\x02-\x05]|\((lp|dp)\d+\n")
SAFETENSORS = re.compile(rb'.{6}\0\0\{"', re.DOTALL)
# what a zip archive with a certain member holds below a certain folder
ZIPPED: tuple[tuple[str, str, Kind], ...] = (
    ("[Content_Types].xml", "word/", WORD),
    ("[Content_Types].xml", "xl/", SPREADSHEET),
    ("[Content_Types].xml", "ppt/", SLIDES),
    ("META-INF/container.xml", "", BOOK),
    ("mimetype", "content.xml", OPEN_DOCUMENT),
    ("META-INF/MANIFEST.MF", "", WEIGHTS._replace(name="a Java archive")),
)
ENDINGS: dict[str, Kind] = {
    ".po": GETTEXT,
    ".pot": GETTEXT,
    ".xlf": XLIFF,
    ".xliff": XLIFF,
    ".sdlxliff": XLIFF,
    ".srt": SUBTITLES,
    ".vtt": SUBTITLES,
    ".yaml": YAML,
    ".yml": YAML,
}
# a first line that is nothing but tags, or begins with what only a whole document begins with
MARKUP_START = re.compile(
    r"\s*(<!doctype\b|<\?xml\b|<!--[^>]*(-->\s*|)$|<(html|head|body)\b[^<>]*>\s*(<|$))", re.IGNORECASE
)
JSON_START = re.compile(r'\s*(\[\s*)?\{\s*"[^"]*"\s*:')
# the start of a file without columns
TAG_START = re.compile(r"\s*</?[A-Za-z][\w:.-]*(\s[^<>]*)?>")
SUBTITLE_TIME = re.compile(r"\d\d:\d\d[,.]\d\d\d --> ")


def refused(name: str, kind: Kind, task: Task) -> RegardError:
    """The error that says what a file is and how its text is had."""
    remedy = kind.for_pairs if task == "pairs" else kind.for_text
    if task == "lines" and kind in (PARQUET, ARROW, TMX, JSON):
        remedy = "save its sentences as plain text, one on each line"
    return RegardError(f"{name}: this is {kind.name}; {remedy}")


def kind_of_bytes(head: bytes) -> Kind | None:
    """What a file is whose first HEAD bytes these are, or None where they may be text."""
    for offset, magic, kind in MAGIC:
        if head.startswith(magic, offset) and not (magic.isalnum() and is_text(head)):
            return kind
    if PICKLED.match(head):
        return PICKLE
    return WEIGHTS if SAFETENSORS.match(head) else None


def kind_of_zip(members: Sequence[str]) -> Kind | None:
    """What a zip archive with these members is, or None where it merely packs files."""
    for member, folder, kind in ZIPPED:
        if member in members and any(name.startswith(folder) for name in members):
            return kind
    if any(name.endswith("/data.pkl") for name in members):
        return PICKLE
    return WEIGHTS if members and all(name.endswith(".npy") for name in members) else None


def kind_of_line(line: str, more: bytes) -> Kind | None:
    """What a file is whose first line that is not blank this is, with `more` behind it; None for what may be text."""
    # a sentence may speak of tags; a table of sentences has its tabs
    if "\t" in line or MARKUP_START.match(line) is None:
        return None
    head = line.encode() + more
    return TMX if b"<tmx" in head else XLIFF if b"<xliff" in head else MARKUP


def kind_of_table(line: str, suffix: str) -> Kind | None:
    """What a file is that should be a table of pairs and whose first line is no row of it."""
    if suffix in ENDINGS:
        return ENDINGS[suffix]
    if JSON_START.match(line):
        return JSON
    if TAG_START.match(line) and "\t" not in line and "|||" not in line:
        return TAGGED
    return SUBTITLES if SUBTITLE_TIME.search(line) or line.strip() == "WEBVTT" else None


def is_text(head: bytes) -> bool:
    """Whether these bytes may be text: words such as RIFF and BZh begin sentences, too."""
    return not any(byte < 9 or 13 < byte < 32 for byte in head)

"""Names of languages: the codes and words by which files name a side."""

# ISO 639-1
CODES = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en "
    "eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv "
    "ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne "
    "ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st "
    "su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
NAMES = (
    "arabic bengali bulgarian burmese cantonese catalan chinese croatian czech danish dutch english estonian finnish "
    "french german greek hebrew hindi hungarian icelandic indonesian irish italian japanese khmer korean lao latin "
    "latvian lithuanian malay mandarin norwegian persian polish portuguese romanian russian serbian slovak slovene "
    "slovenian spanish swahili swedish tamil telugu thai tibetan turkish ukrainian urdu vietnamese welsh yiddish"
)
KNOWN = frozenset(CODES.split() + NAMES.split())
# ISO 15924 and 3166: a script such as Hans, a region such as US or 419
LONGEST_SUBTAG = 4


def is_language(name: str) -> bool:
    """Whether a word names a language: a code such as en, en-US or zh_Hans, or a word such as English."""
    first, *subtags = _parts(name.strip().lower())
    return first in KNOWN and all(0 < len(part) <= LONGEST_SUBTAG for part in subtags)


def same_language(tag: str, wanted: str) -> bool:
    """Whether a tag such as en-US is of the language that is wanted, such as en: all that is wanted is in it."""
    tags, parts = _parts(tag.lower()), _parts(wanted.lower())
    return tags[: len(parts)] == parts


def _parts(name: str) -> list[str]:
    return name.replace("_", "-").split("-")

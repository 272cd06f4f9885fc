"""What users name (classes, data sets, licences) as Markdown that stays text, whatever it holds."""

import re
import unicodedata

# Categories of characters that steer instead of being seen: controls, line ends, direction marks.
_STEERING = ("Cc", "Cf", "Zl", "Zp", "Cs", "Co")
# Neither Markdown nor HTML reads these, nor a colon that no address follows.
_READ_AS_MARKUP = re.compile(r"(?!:(?:\s|$))[^A-Za-z0-9 ,.;?'\"()%/+\x80-\U0010ffff-]")


def clean(value: object, most: int = 200) -> str:
    """On one line, without characters that steer, and not longer than `most`."""
    seen = "".join(" " if unicodedata.category(c) in _STEERING else c for c in str(value))
    line = " ".join(seen.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def text(value: object, most: int = 200) -> str:
    """As running text: everything that Markdown or HTML could read becomes a character reference."""
    escaped = _READ_AS_MARKUP.sub(lambda match: f"&#{ord(match[0])};", clean(value, most))
    # GitHub's Markdown makes links of bare addresses; lists begin at a line's start only.
    escaped = re.sub(r"(?i)\bwww\.", lambda match: f"{match[0][:-1]}&#46;", escaped)
    return re.sub(r"^([-+]|\d+[.)])(?=\s|$)", lambda match: f"&#{ord(match[0][0])};{match[0][1:]}", escaped)


def code(value: object, most: int = 200) -> str:
    """As code, in which nothing is read as markup; as text where a backtick or a table's bar would end it."""
    line = clean(value, most)
    return text(line, most) if not line or "`" in line or "|" in line else f"`{line}`"


def fenced(value: object, language: str = "", most: int = 4000) -> str:
    """Several lines as a block of code, with a fence that no line within can close."""
    lines = [clean(line, 500) if line.strip() == line else line[: len(line) - len(line.lstrip())] + clean(line, 500)
             for line in str(value)[:most].splitlines()]  # fmt: skip
    body = "\n".join(re.sub(r"[^\S\n]", " ", line) for line in lines)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def slug(value: object) -> str:
    """As a part of a repository's name: lower-case letters, digits and single hyphens."""
    plain = unicodedata.normalize("NFKD", str(value)).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")

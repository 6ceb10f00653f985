"""CSV files as exports really are: gzipped or not, odd headers, tabs instead of commas, bad lines."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ml.common.errors import SourceError

BATCH = 50_000
BLOCK = 1 << 20
# date(birth_datetime,'unixepoch') → birth_datetime; "case vocabulary_reference when …" → vocabulary_reference
CALL = re.compile(r"^\w+\(\s*([A-Za-z_]\w*)\s*(?:,.*)?\)$|^case\s+([A-Za-z_]\w*)\s+when\b.*$", re.IGNORECASE)


@dataclass(frozen=True)
class Batch:
    """Rows of a file: line numbers (of each row's first line, the header is 1), fields, and the text as it stands."""

    lines: list[int]
    fields: list[list[str]]
    raw: list[str]


@dataclass(frozen=True)
class Malformed:
    """A row that is no row, with the reason."""

    line: int
    reason: str
    raw: str


def find_csv(directory: Path) -> dict[str, Path]:
    """CSV files by lower-case stem.

    Raises:
        SourceError: no such directory, or two files of one name.
    """
    if not directory.is_dir():
        raise SourceError(f"{directory} is not a directory", "name the folder that holds the CSV files")
    found: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        stem = re.sub(r"\.csv(\.gz)?$", "", path.name.lower())
        if stem == path.name.lower():
            continue
        if stem in found:
            raise SourceError(f"{found[stem].name} and {path.name} are the same table", "keep one of them")
        found[stem] = path
    return found


def check_file(path: Path) -> str:
    """SHA-256 of the file, once its whole text proved to be UTF-8.

    Raises:
        SourceError: it cannot be read, is not a whole gzip file, or not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    try:
        with _open_bytes(path) as file:
            while block := file.read(BLOCK):
                pending = len(decoder.getstate()[0])
                decoder.decode(block)
                done += len(block)
            pending = len(decoder.getstate()[0])
            block = b""
            decoder.decode(b"", final=True)
        with path.open("rb") as raw:
            return hashlib.file_digest(raw, "sha256").hexdigest()
    except UnicodeDecodeError as error:
        where = "of its unpacked text" if path.suffix == ".gz" else "of the file"
        raise SourceError(
            f"{path.name} is not UTF-8 (byte {done - pending + error.start:,} {where})",
            "convert it, for example with iconv -f ISO-8859-1 -t UTF-8; nothing was loaded",
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = "is not a whole gzip file" if path.suffix == ".gz" else f"cannot be read ({type(error).__name__})"
        raise SourceError(f"{path.name} {reason}", "export or copy it again; nothing was loaded") from None


class CsvReader:
    """Reads one file in batches.

    Attributes:
        header: column names, lower case, odd names reduced to the column they are about.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", newline="")
        self._seen: list[str] = []
        first = self._text.readline()
        tabs = first.count("\t") > first.count(",")
        self._dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"delimiter": ","}
        names = next(csv.reader([first], **self._dialect), [])
        self.header = [column_name(name) for name in names]
        if not self.header or len(set(self.header)) != len(self.header):
            self.close()
            raise SourceError(f"{path.name} has no header or names a column twice", "export it with one header line")

    def close(self) -> None:
        self._text.close()

    def batches(self, size: int = BATCH) -> Iterator[tuple[Batch, list[Malformed]]]:
        """Good rows and malformed ones, ``size`` at a time."""
        csv.field_size_limit(1 << 24)
        rows = csv.reader(self._recorded(), **self._dialect)
        batch, malformed, line = Batch([], [], []), list[Malformed](), 2
        width = len(self.header)
        while True:
            try:
                fields = next(rows)
                reason = None if len(fields) == width else f"{len(fields)} fields instead of {width}"
            except StopIteration:
                break
            except csv.Error:
                fields, reason = ["?"], "not CSV"
            raw = "".join(self._seen)
            taken, self._seen = len(self._seen), []
            if reason is None:
                batch.lines.append(line)
                batch.fields.append(fields)
                batch.raw.append(raw)
            elif fields:
                malformed.append(Malformed(line, reason, raw))
            line += taken
            if len(batch.lines) + len(malformed) >= size:
                yield batch, malformed
                batch, malformed = Batch([], [], []), []
        if batch.lines or malformed:
            yield batch, malformed

    def _recorded(self) -> Iterator[str]:
        for text in self._text:
            self._seen.append(text)
            yield text


def column_name(name: str) -> str:
    """The column a header field is about: lower case, without the expression some exports leave around it."""
    plain = name.strip().strip('"').strip()
    match = CALL.match(plain)
    if match:
        plain = match.group(1) or match.group(2)
    return plain.lower()


def _open_bytes(path: Path) -> IO[bytes]:
    file = gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # noqa: SIM115 (the caller closes it)
    return cast(IO[bytes], file)

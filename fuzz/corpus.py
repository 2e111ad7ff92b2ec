#!/usr/bin/env python3
"""Turns a corpus between what is committed, a line an input, and what libFuzzer wants, a file an input.

    corpus.py unpack path    fuzz/corpus/path.txt -> fuzz/corpus/path/
    corpus.py pack path      fuzz/corpus/path/ -> fuzz/corpus/path.txt
"""

import hashlib
import pathlib
import re
import sys

CORPUS = pathlib.Path(__file__).parent / "corpus"
ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(data):
    """One line in the escapes that Rust and Python share; spaces at its end are such that editors leave them alone."""
    text = data.decode("latin-1")
    return re.sub(r"[^ -\[\]-~]| $", lambda c: ESCAPES.get(c[0], f"\\x{ord(c[0]):02x}"), text)


def unescaped(line):
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")


def pack(packed, folder):
    inputs = (file.read_bytes() for file in folder.iterdir() if file.is_file())
    # The short ones first: what fails for several inputs is understood best by the first.
    lines = [escaped(data) for data in sorted(inputs, key=lambda data: (len(data), data))]
    packed.write_text("".join(line + "\n" for line in lines), encoding="ascii")
    print(f"{packed.name}: {len(lines)} inputs, {packed.stat().st_size} bytes")


def unpack(packed, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for line in packed.read_text(encoding="ascii").splitlines():
        data = unescaped(line)
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pack", target]:
            pack(CORPUS / f"{target}.txt", CORPUS / target)
        case ["unpack", target]:
            unpack(CORPUS / f"{target}.txt", CORPUS / target)
        case _:
            sys.exit(__doc__)

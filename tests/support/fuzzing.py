"""Fuzz one target: `python -m support.fuzzing TARGET [LIBFUZZER OPTIONS] [CORPUS]`. Ends with an error at a fault."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["confide", "support.fuzz_targets"]):
    from support.fuzz_targets import FAULTY_TARGET, TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, FAULTY_TARGET if name == FAULTY_TARGET.__name__ else TARGETS[name])
    atheris.Fuzz()

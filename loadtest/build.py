"""The tool's C programs, built when they are first needed: in Python they would be the bottleneck themselves."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def build(name: str) -> Path:
    """Return the program made from `name`, a path beside this file; it is kept until the source changes."""
    source = HERE / name
    mark = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    program = Path(tempfile.gettempdir()) / f"loadtest-{os.getuid()}" / f"{source.stem}-{mark}"
    if not program.exists():
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise SystemExit("a C compiler is needed: readers and writers in Python would be the bottleneck themselves")
        program.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-o", unfinished, source], check=True)
        unfinished.rename(program)
    return program

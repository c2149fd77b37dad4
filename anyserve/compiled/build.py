"""Making a build: mypyc translates the modules to C, the C compiler does the rest on all cores."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from anyserve.compiled import translate
from anyserve.compiled.plain import rewritten_sources
from anyserve.compiled.sources import PACKAGE, compiled_modules, digest, source_files
from anyserve.compiled.store import Build, Store
from anyserve.compiled.tuning import Tuning, need_gcc
from anyserve.errors import AnyServeError, MissingDependencyError

Progress = Callable[[str, float], None]
"""Takes what is done just now, and how much of all is done, 0..1."""
_TRANSLATING: Final = 0.3
"""Its share of the time."""
_WATCHED: Final = 0.7
"""Where the first of two builds is done, likewise."""
_SHOWN: Final = 8
"""Lines of a failed command that are shown."""
_AMONG_THEMSELVES: Final = ("-fvisibility=hidden", "-fno-semantic-interposition", "-fno-plt")
"""Nobody else calls what a library holds, or replaces it: calls in it go straight to their target.
(GCC's words; Clang knows them, too.)"""


@dataclass(frozen=True, slots=True)
class Compiler:
    """The C compiler that made this Python, or the one named by `CC`."""

    compile: tuple[str, ...]
    link: tuple[str, ...]
    suffix: str

    def with_flags(self, compile_: Sequence[str], link: Sequence[str] = ()) -> Compiler:
        """The same, told more."""
        return replace(self, compile=(*self.compile, *compile_), link=(*self.link, *link))

    def object_of(self, source: str, library: dict[str, Any]) -> list[str]:
        """The command that compiles one file; its object lies beside it."""
        include = [f"-I{folder}" for folder in (*library["include_dirs"], "c")]
        output = ["-c", source, "-o", f"{source}.o"]
        return [*self.compile, *library["arguments"], *_AMONG_THEMSELVES, *include, *output]

    def library_of(self, library: dict[str, Any], file: Path) -> list[str]:
        """The command that links a library."""
        return [*self.link, *(f"{source}.o" for source in library["sources"]), "-o", str(file)]


def find_compiler() -> Compiler:
    """The C compiler, with Python's own settings.

    Raises:
        MissingDependencyError: there is none, or Python's headers are missing.
    """
    setting = sysconfig.get_config_vars()
    own = shlex.split(os.environ.get("CC", ""))
    command = own or shlex.split(setting.get("CC") or "cc")
    if shutil.which(command[0]) is None:
        raise MissingDependencyError(
            f"there is no C compiler ({command[0]})",
            code="no_compiler",
            hint="install one (Debian: apt-get install gcc), or name one: CC=clang",
        )
    headers = sysconfig.get_path("include")
    if not (Path(headers) / "Python.h").is_file():
        raise MissingDependencyError(
            f"Python's headers are not in {headers}",
            code="no_compiler",
            hint="install them (Debian: apt-get install python3-dev)",
        )
    flags = shlex.split(f"{setting.get('CFLAGS') or ''} {setting.get('CCSHARED') or ''}")
    link = shlex.split(setting.get("LDSHARED") or "cc -shared")
    if own:
        link = [*own, *link[1:]]
    compile_ = (*command, *flags, f"-I{headers}")
    return Compiler(compile_, tuple(link), str(setting["EXT_SUFFIX"]))


def mypyc_version() -> str:
    """The version of mypyc that is installed.

    Raises:
        MissingDependencyError: none is.
    """
    try:
        version("setuptools")
        return version("mypy")
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed",
            code="no_mypyc",
            hint="pip install 'anyserve[compile]'",
        ) from None


def make_build(store: Store, progress: Progress, *, tune: bool = False) -> Build:
    """Build the modules as they are, and keep the build. `tune`: build them twice, the second time
    for what the first did in a simulation.

    Raises:
        MissingDependencyError: mypyc or a C compiler is missing.
        AnyServeError: one of them failed; the message ends with what it said.
    """
    mypy, compiler, began_s = mypyc_version(), find_compiler(), time.monotonic()
    if tune:
        need_gcc(compiler.compile[:1])
    with _workshop(store) as folder:
        progress("translating to C", 0.0)
        translation = _translate(folder, mypy, began_s)
        begin = _TRANSLATING
        if tune:
            compiler = _tuned(compiler, translation, _part(progress, (begin, _WATCHED)))
            begin = _WATCHED
        made = folder / "made"
        build = translation.compile(compiler, made, _part(progress, (begin, 1.0)), tuned=tune)
        store.add(build, made)
    progress("done", 1.0)
    return build


@dataclass(frozen=True, slots=True)
class _Translation:
    """The modules in C."""

    folder: Path
    key: str
    group: str
    """The library that the others need."""
    libraries: Sequence[dict[str, Any]]
    mypy: str
    began_s: float

    def compile(
        self, compiler: Compiler, made: Path, progress: Progress, *, tuned: bool = False
    ) -> Build:
        """A build of them, its files below `made`."""
        found = _compile(compiler, self.libraries, self.folder, made, progress)
        spent_s = round(time.monotonic() - self.began_s, 1)
        return Build(self.key, self.group, found, self.mypy, spent_s, tuned=tuned)


def _translate(folder: Path, mypy: str, began_s: float) -> _Translation:
    modules = compiled_modules()
    _copy_sources(folder)
    key = digest(folder / PACKAGE.name)  # of the copies: the sources may change meanwhile
    for name, source in rewritten_sources(folder / PACKAGE.name).items():
        (folder / PACKAGE.name / name).write_text(source, encoding="utf-8")
    files = [str(Path(PACKAGE.name) / path) for path in modules.values()]
    _run([sys.executable, "-P", translate.__file__, *files], folder)
    libraries = json.loads((folder / translate.LIBRARIES).read_bytes())
    names = [str(library["name"]) for library in libraries]
    group = next(name for name in names if name not in modules)
    return _Translation(folder, key, group, libraries, mypy, began_s)


def _tuned(compiler: Compiler, translation: _Translation, progress: Progress) -> Compiler:
    """The compiler, told what a build that counts did in a simulation."""
    tuning = Tuning(translation.folder)
    made = translation.folder / "watched"
    counting = compiler.with_flags(tuning.counts, ("-fprofile-generate",))
    tuning.store.add(translation.compile(counting, made, progress, tuned=True), made)
    progress("watching a simulation", 1.0)
    tuning.watch()
    return compiler.with_flags(tuning.uses)


@contextmanager
def _workshop(store: Store) -> Iterator[Path]:
    """A folder for a build under way, beside those that are done."""
    store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="under-way-", dir=store.root) as name:
        yield Path(name)


def _copy_sources(folder: Path) -> None:
    for path in source_files():
        copy = folder / PACKAGE.name / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _compile(
    compiler: Compiler,
    libraries: Sequence[dict[str, Any]],
    folder: Path,
    made: Path,
    progress: Progress,
) -> dict[str, str]:
    """Compile and link all libraries; their files below `made`, by name."""
    found = {
        library["name"]: library["name"].replace(".", "/") + compiler.suffix
        for library in libraries
    }
    objects = [
        compiler.object_of(source, library)
        for library in libraries
        for source in library["sources"]
    ]
    links = []
    for library in libraries:
        file = made / found[library["name"]]
        file.parent.mkdir(parents=True, exist_ok=True)
        links.append(compiler.library_of(library, file))
    total, done = len(objects) + len(links), 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for commands in (objects, links):
            for _ in pool.map(lambda command: _run(command, folder), commands):
                done += 1
                progress("compiling", done / total)
    return found


def _part(progress: Progress, span: tuple[float, float]) -> Progress:
    """Shares of a part, as shares of the whole."""
    begin, end = span
    return lambda stage, share: progress(stage, begin + (end - begin) * share)


def _run(command: Sequence[str], folder: Path) -> None:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = (ended.stdout + ended.stderr).strip().splitlines()
        shown = "\n".join(line for line in said if "warning:" not in line)
        shown = "\n".join(shown.splitlines()[-_SHOWN:])
        raise AnyServeError(
            f"{Path(command[0]).name} failed:\n{shown}",
            code="compile_failed",
            hint="simulations run as Python meanwhile; please report it",
        )

"""What there is: rules, models, tasks, found by file and described without importing any of them.

A file that holds the marker (a class derived from ``Rule``, a function ``build``) is an entry; its stem
is the name. Files outside the repository come in by path or by entry point.
"""

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import UserError, unknown

ROOT = Path(__file__).resolve().parent.parent
Marker = Callable[[ast.Module], str | None]


@functools.cache
def _parsed(path: Path, changed: int) -> ast.Module:
    """Return the syntax tree of a file in one of its states; catalogues are asked often."""
    del changed
    return ast.parse(path.read_text(encoding="utf-8"))


def class_derived_from(base: str, package: str) -> Marker:
    """Return a marker: the name of the file's first class that derives from ``base`` or from a class of ``package``.

    Args:
        base: Name of the base class.
        package: Top-level package whose modules hold classes derived from it.
    """

    def find(tree: ast.Module) -> str | None:
        known = {base}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                known |= {alias.asname for alias in node.names if alias.name == base and alias.asname}
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if isinstance(node, ast.ImportFrom) and module.startswith(f"{package}.") and not module.endswith(".base"):
                known |= {alias.asname or alias.name for alias in node.names}
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                bases = [b.attr if isinstance(b, ast.Attribute) else getattr(b, "id", "") for b in node.bases]
                if known & set(bases):
                    if not node.name.startswith("_"):
                        return node.name
                    known.add(node.name)
        return None

    return find


def function_named(name: str) -> Marker:
    """Return a marker: ``name``, if the file defines a function of that name."""

    def find(tree: ast.Module) -> str | None:
        return name if any(isinstance(n, ast.FunctionDef) and n.name == name for n in tree.body) else None

    return find


@dataclass(frozen=True)
class Entry:
    """One thing of a catalogue: its name, the first line of its docstring, where it is."""

    name: str
    summary: str
    module: str
    attribute: str


@dataclass(frozen=True)
class Catalogue:
    """All things of one kind.

    Attributes:
        kind: What one entry is, in the singular: ``rule``.
        package: Top-level package that is searched, in dotted form.
        marker: Recognises an entry by its syntax tree.
        group: Entry-point group for entries of other distributions.
    """

    kind: str
    package: str
    marker: Marker
    group: str | None = None

    def entries(self) -> dict[str, Entry]:
        """Return name → entry, sorted by name; imports nothing."""
        folder = ROOT.joinpath(*self.package.split("."))
        found = {}
        for path in sorted(folder.rglob("*.py")):
            if path.stem.startswith("_") or path.stem == "base":
                continue
            try:
                tree = _parsed(path, path.stat().st_mtime_ns)
            except SyntaxError as error:
                found[path.stem] = Entry(
                    path.stem, f"(broken: line {error.lineno}: {error.msg})", self._module(path), ""
                )
                continue
            attribute = self.marker(tree)
            if attribute:
                module = self._module(path)
                summary = (ast.get_docstring(tree) or "").split("\n")[0]
                found[path.stem] = Entry(path.stem, summary, module, attribute)
        if self.group:
            for point in importlib.metadata.entry_points(group=self.group):
                if point.name not in found:
                    source = point.dist.name if point.dist else "another distribution"
                    found[point.name] = Entry(point.name, f"(from {source})", point.module, point.attr)
        return dict(sorted(found.items()))

    def defaults(self, name: str) -> dict[str, Any]:
        """Return the options of an entry that have a literal default, read from its file without importing it."""
        if name.endswith(".py"):
            path = Path(name)
        elif name in (entries := self.entries()):
            path = ROOT.joinpath(*entries[name].module.split(".")).with_suffix(".py")
        else:
            return {}
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, UnicodeDecodeError):
            return {}
        attribute = self.marker(tree)
        node: Any = next((n for n in tree.body if getattr(n, "name", None) == attribute), None)
        if isinstance(node, ast.ClassDef):
            node = next((n for n in node.body if getattr(n, "name", None) == "__init__"), None)
        if not isinstance(node, ast.FunctionDef):
            return {}
        pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        return {a.arg: ast.literal_eval(d) for a, d in pairs if isinstance(d, ast.Constant)}

    @staticmethod
    def _module(path: Path) -> str:
        return ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def load(self, name: str) -> Any:
        """Return the class or function called ``name``, or the one in the file ``name`` (``*.py``).

        Raises:
            UserError: If there is none, or its file does not import.
        """
        if name.endswith(".py"):
            return self._load_path(Path(name))
        entries = self.entries()
        if name not in entries:
            raise unknown(self.kind, name, entries)
        entry = entries[name]
        try:
            return getattr(importlib.import_module(entry.module), entry.attribute)
        except Exception as error:
            raise UserError(f"{self.kind} {name!r} does not import: {describe(error)}") from error

    def _load_path(self, path: Path) -> Any:
        try:
            text = path.read_text(encoding="utf-8")
            attribute = self.marker(ast.parse(text))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.kind} file {path}: cannot be read ({error})") from error
        except SyntaxError as error:
            raise UserError(f"{self.kind} file {path}: line {error.lineno}: {error.msg}") from error
        if attribute is None:
            raise UserError(f"{self.kind} file {path} holds no class derived from Rule; see `plasticbench new-rule`")
        # The module's name carries its path and content, so that two files of one name can live together.
        digest = hashlib.sha256(f"{path.resolve()}\n{text}".encode()).hexdigest()[:8]
        module_name = f"plasticbench_{path.stem}_{digest}"
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, path)
            if spec is None or spec.loader is None:
                raise UserError(f"{self.kind} file {path}: not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[module_name]
                raise UserError(f"{self.kind} file {path} does not import: {describe(error)}") from error
        return getattr(sys.modules[module_name], attribute)


def describe(error: BaseException) -> str:
    """Return an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def options_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a rule's constructor or a ``build`` function."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


RULES = Catalogue("rule", "rules", class_derived_from("Rule", "rules"), "plasticbench.rules")
MODELS = Catalogue("model", "models", function_named("build"))
TASKS = Catalogue("task", "training.data", function_named("build"))

"""Small faults planted in a function, one at a time: the operators of mutmut on the code that computes.

What is left out, because no number depends on it: strings, annotations and docstrings, decorators, what is
raised or warned, ``strict=`` of ``zip``, calls of ``len`` and ``isinstance`` (mutmut's own exceptions).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.mutators import mutation_operators

Functions = dict[tuple[str, int], list[FunctionType]]
_LEFT_ALONE = (cst.Annotation, cst.Decorator, cst.Raise, cst.SimpleString, cst.ConcatenatedString)
_CALLS_LEFT_ALONE = {"len", "isinstance", "cast", "warn"}
_ARGUMENTS_LEFT_ALONE = {"strict"}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: relative to the root of the project.
        function: qualified name of the function it is in.
        line: of the changed expression, in the file as it stands.
        span: first and last line of the statement that holds it.
        before: the expression as it is.
        after: what stands there instead.
        key: of the function's whole text before and after: lines that move elsewhere do not change it.
    """

    file: str
    function: str
    line: int
    span: tuple[int, int]
    before: str
    after: str
    key: str
    first: int = field(repr=False)
    module: cst.Module = field(repr=False, compare=False)
    node: cst.CSTNode = field(repr=False, compare=False)
    other: cst.CSTNode = field(repr=False, compare=False)

    def compiled(self, root: Path) -> tuple[CodeType, str]:
        """The code of the function with the fault in it, and the text of the whole file.

        Raises:
            SyntaxError: the fault is no Python.
        """
        text = self.module.deep_replace(self.node, self.other).code  # type: ignore[arg-type]
        code = compile(text, str(root / self.file), "exec", dont_inherit=True)
        return next(c for c in _codes(code) if _place(c) == (self.function, self.first)), text


def mutants_of(root: Path, file: str) -> list[Mutant]:
    """All faults of one file, in its order, each text once."""
    wrapper = MetadataWrapper(cst.parse_module((root / file).read_text(encoding="utf-8")))
    visitor = _Visitor(file, wrapper.module)
    wrapper.visit(visitor)
    return list({mutant.key: mutant for mutant in visitor.found}.values())


def plant(mutant: Mutant, root: Path, functions: Functions) -> None:
    """Put the fault into the running process: whoever holds the function, holds the mutant from now on.

    Args:
        mutant: the fault.
        root: of the project.
        functions: those of the file, as :func:`functions_of` finds them.

    Raises:
        LookupError: no such function is loaded.
        SyntaxError, ValueError: the fault is no Python.
    """
    code, text = mutant.compiled(root)
    loaded = functions[mutant.function, mutant.first]
    arguments = _arguments(ast.parse(text), mutant.first)
    for function in loaded:
        function.__code__ = code
        if arguments is not None and (function.__defaults__ or function.__kwdefaults__):
            _set_defaults(function, arguments)


def functions_of(path: Path, everything: list[Any]) -> Functions:
    """The functions of a file among ``gc.get_objects()``, by qualified name and first line."""
    found: Functions = {}
    for item in everything:
        if type(item) is FunctionType and item.__code__.co_filename == str(path):
            found.setdefault(_place(item.__code__), []).append(item)
    return found


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider, ParentNodeProvider)

    def __init__(self, file: str, module: cst.Module) -> None:
        self.file, self.module = file, module
        self.names: list[str] = []
        self.outer: tuple[cst.FunctionDef, str, str] | None = None  # node, qualified name, its text
        self.depth = 0
        self.found: list[Mutant] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.ClassDef) and self.outer is None:
            self.names.append(node.name.value)
        if isinstance(node, cst.FunctionDef):
            self.depth += 1
            if self.outer is None:
                name = ".".join([*self.names, node.name.value])
                self.outer = (node, name, self.module.code_for_node(node))
                return True
        if self.outer is not None:
            if _left_alone(node):
                return False
            self._mutate(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.ClassDef) and self.outer is None:
            self.names.pop()
        if isinstance(original_node, cst.FunctionDef):
            self.depth -= 1
            if self.depth == 0:
                self.outer = None

    def _mutate(self, node: cst.CSTNode) -> None:
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                for other in operator(node):
                    if not _only_text(node, other):
                        self._keep(node, other)

    def _keep(self, node: cst.CSTNode, other: cst.CSTNode) -> None:
        assert self.outer is not None
        function, name, text = self.outer
        mutated = self.module.code_for_node(function.deep_replace(node, other))  # type: ignore[arg-type]
        if mutated == text:
            return
        span = self._span(node)
        key = hashlib.sha256("\0".join((self.file, name, text, mutated)).encode()).hexdigest()[:16]
        self.found.append(
            Mutant(
                self.file, name, self._lines(node)[0], span, self._text(node), self._text(other), key,
                self._first(function), self.module, node, other,
            )
        )  # fmt: skip

    def _text(self, node: cst.CSTNode) -> str:
        return " ".join(self.module.code_for_node(node).split())

    def _lines(self, node: cst.CSTNode) -> tuple[int, int]:
        while (place := self.get_metadata(PositionProvider, node, None)) is None:
            node = self.get_metadata(ParentNodeProvider, node)
        return place.start.line, place.end.line

    def _first(self, function: cst.FunctionDef) -> int:
        head = function.decorators[0] if function.decorators else function
        return self._lines(head)[0]

    def _span(self, node: cst.CSTNode) -> tuple[int, int]:
        """The lines of the statement a node is in; of a statement with a body, those of its head."""
        while not isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            node = self.get_metadata(ParentNodeProvider, node)
        first, last = self._lines(node)
        if isinstance(node, cst.FunctionDef):  # a default: who calls the function
            first = self._lines(node.body)[0]
        elif isinstance(node, cst.BaseCompoundStatement) and hasattr(node, "body"):
            last = max(first, self._lines(node.body)[0] - 1)
        return first, last


def _left_alone(node: cst.CSTNode) -> bool:
    if isinstance(node, (*_LEFT_ALONE, cst.FormattedString)):
        return True
    if isinstance(node, cst.Arg) and node.keyword and node.keyword.value in _ARGUMENTS_LEFT_ALONE:
        return True
    if isinstance(node, cst.Call):
        name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
        return isinstance(name, cst.Name) and name.value in _CALLS_LEFT_ALONE
    return False


def _only_text(node: cst.CSTNode, other: cst.CSTNode) -> bool:
    """Whether a changed call differs in nothing but arguments that are left alone."""
    if not (isinstance(node, cst.Call) and isinstance(other, cst.Call)):
        return False
    before, after = (
        [arg.value for arg in call.args if not _left_alone(arg)] for call in (node, other)
    )
    same = len(before) == len(after) and all(a is b for a, b in zip(before, after, strict=True))
    return same and node.func is other.func


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _place(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _arguments(tree: ast.Module, first: int) -> ast.arguments | None:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            head = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            if head == first:
                return node.args
    return None


def _set_defaults(function: FunctionType, arguments: ast.arguments) -> None:
    def value(node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), "default", "eval"), function.__globals__)

    # Only what is written as a number, a truth value or None: others are objects that must stay the same ones.
    positional = list(function.__defaults__ or ())
    for i, node in enumerate(arguments.defaults):
        if isinstance(node, ast.Constant | ast.UnaryOp):
            positional[i] = value(node)
    if positional:
        function.__defaults__ = tuple(positional)
    for name, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if isinstance(default, ast.Constant | ast.UnaryOp):
            function.__kwdefaults__[name.arg] = value(default)

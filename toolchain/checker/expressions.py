"""Checks symbolic sizes: torch passes their text to sympy, which evaluates it as Python, so only arithmetic passes."""

from __future__ import annotations

import ast
import re

from toolchain.limits import EXPRESSION

_BITS_LIMIT = 4096  # of the largest number that arises when sympy builds the expression

_CHARACTERS = re.compile(r"[A-Za-z0-9_'(),.=<>+\-*/% ]*")
_SYMBOL = re.compile(r"([su]|zu?f)[0-9]+")
_FUNCTIONS = {
    "Abs", "Add", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Float", "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge",
    "Gt", "Identity", "IntTrueDiv", "Integer", "LShift", "Le", "Lt", "Max", "Min", "Mod", "ModularIndexing", "Mul",
    "Ne", "Pow", "PowByNatural", "PythonMod", "RShift", "Rational", "RoundDecimal", "RoundToInt", "ToFloat",
    "TruncToInt", "Where", "ceiling", "floor",
}  # fmt: skip
_ASSUMPTIONS = {"integer", "positive", "nonnegative", "negative", "nonpositive", "zero", "real", "finite"}


def is_plain_expression(text: str) -> bool:
    """Whether a symbolic size consists only of names of sizes, numbers, arithmetic and known functions.

    The text is parsed and never evaluated. A power that would fill the memory is refused too.
    """
    if EXPRESSION.excess(len(text)) or not _CHARACTERS.fullmatch(text):
        return False
    try:
        return _bits(ast.parse(text, mode="eval").body) <= _BITS_LIMIT
    except (_NotPlainError, SyntaxError, ValueError, MemoryError, RecursionError):
        return False


class _NotPlainError(Exception):
    pass


def _bits(node: ast.expr) -> int:
    """Bounds the bits of the numbers in the value; the name of a size counts as one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        return len(str(node.value)) * 4 if len(str(node.value)) <= 40 else _refuse()
    if isinstance(node, ast.Name) and _SYMBOL.fullmatch(node.id):
        return 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        return _bits(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _power([node.left, node.right])
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
    ):
        return _bits(node.left) + _bits(node.right)
    if isinstance(node, ast.Compare):
        return sum(map(_bits, [node.left, *node.comparators]))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call(node.func.id, node)
    return _refuse()


def _call(name: str, node: ast.Call) -> int:
    if name == "Symbol":
        return _symbol(node)
    if name not in _FUNCTIONS or node.keywords:
        return _refuse()
    if name in ("Pow", "PowByNatural", "LShift"):
        return _power(node.args)
    return sum(map(_bits, node.args))


def _symbol(node: ast.Call) -> int:
    [name] = node.args
    if not (isinstance(name, ast.Constant) and isinstance(name.value, str) and _SYMBOL.fullmatch(name.value)):
        return _refuse()
    for keyword in node.keywords:
        if keyword.arg not in _ASSUMPTIONS or not isinstance(keyword.value, ast.Constant):
            return _refuse()
    return 1


def _power(args: list[ast.expr]) -> int:
    base, exponent = args
    if isinstance(exponent, ast.Call) and len(exponent.args) == 1:  # Integer(2)
        [exponent] = exponent.args
    if isinstance(exponent, ast.UnaryOp):
        exponent = exponent.operand
    if not isinstance(exponent, ast.Constant) or not isinstance(exponent.value, (int, float)):
        return _refuse()
    return _bits(base) * max(int(exponent.value), 1)


def _refuse() -> int:
    raise _NotPlainError

"""A calculator: arithmetic on decimal numbers, written as in Python.

An expression is parsed by `ast` and only what is listed here is computed: no names but these, no
attributes, no strings. Numbers are decimal floating point of 40 digits (`decimal`), so `9**9**9`
costs no more than `1+1`: it is an overflow. `simpleeval`, a library for this, has Python's integers
without a limit on their size, and strings.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, DecimalException, Inexact, Overflow, localcontext
from math import cos, sin, tan

from engine.errors import InvalidInput

MAX_EXPRESSION_CHARS = 500
MAX_DEPTH = 50
DIGITS, SHOWN_DIGITS = 40, 15  # kept while computing; shown of a result that is rounded
MAX_EXPONENT = 9_999
CALCULATION = Context(prec=DIGITS, Emax=MAX_EXPONENT, Emin=-MAX_EXPONENT)
NAMED_NUMBERS = {
    "pi": Decimal("3.141592653589793238462643383279502884197"),
    "e": Decimal("2.718281828459045235360287471352662497757"),
}
Operation = Callable[..., Decimal]
OPERATORS: Mapping[type[ast.AST], Operation] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: (a / b).to_integral_value("ROUND_FLOOR"),
    ast.Mod: lambda a, b: a - b * (a / b).to_integral_value("ROUND_FLOOR"),
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def _by_float(function: Callable[[float], float]) -> Operation:
    return lambda value: Decimal(repr(round(function(float(value)), SHOWN_DIGITS)))


def _rounded(value: Decimal, digits: Decimal = Decimal(0)) -> Decimal:
    if digits != digits.to_integral_value() or abs(digits) > DIGITS:
        raise InvalidInput(f"round takes a whole number of digits up to {DIGITS}")
    return value.quantize(Decimal(1).scaleb(-int(digits)), "ROUND_HALF_UP")


FUNCTIONS: Mapping[str, Operation] = {
    "abs": abs,
    "sqrt": Decimal.sqrt,
    "exp": Decimal.exp,
    "ln": Decimal.ln,
    "log10": Decimal.log10,
    "floor": lambda value: value.to_integral_value("ROUND_FLOOR"),
    "ceil": lambda value: value.to_integral_value("ROUND_CEILING"),
    "round": _rounded,
    "min": min,
    "max": max,
    "sin": _by_float(sin),
    "cos": _by_float(cos),
    "tan": _by_float(tan),
}


def calculator(expression: str) -> str:
    """Compute an arithmetic expression, such as (3 + 4) * 12 / 7 or sqrt(2) ** 3."""
    # For a model that writes as people do
    written = expression.replace("^", "**").replace("×", "*").replace("÷", "/").replace("−", "-")
    if len(written) > MAX_EXPRESSION_CHARS:
        raise InvalidInput(f"an expression has at most {MAX_EXPRESSION_CHARS} characters")
    try:
        parsed = ast.parse(written.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise InvalidInput("this is no arithmetic expression") from None
    with localcontext(CALCULATION) as context:
        try:
            value = _value(parsed.body, written, 0)
        except Overflow:
            raise InvalidInput("the result is too large") from None
        except (DecimalException, ArithmeticError, TypeError, ValueError):
            raise InvalidInput("this has no result: check what is divided and the roots") from None
        return _shown(value, is_exact=not context.flags[Inexact])


def _value(node: ast.AST, text: str, depth: int) -> Decimal:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"an expression is nested at most {MAX_DEPTH} times")

    def of(inner: ast.AST) -> Decimal:
        return _value(inner, text, depth + 1)

    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            # As it is written: a float would be rounded to binary
            written = ast.get_source_segment(text.strip(), node) or str(number)
            return CALCULATION.create_decimal(Decimal(written) if "x" not in written else number)
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            return OPERATORS[type(op)](of(node.left), of(node.right))
        case ast.UnaryOp(op=op) if type(op) in OPERATORS:
            return OPERATORS[type(op)](of(node.operand))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*map(of, node.args))
        case ast.Name(id=name) if name in NAMED_NUMBERS:
            return NAMED_NUMBERS[name]
    known = ", ".join([*FUNCTIONS, *NAMED_NUMBERS])
    raise InvalidInput(f"only numbers, + - * / // % ** and brackets are known, and {known}")


def _shown(value: Decimal, *, is_exact: bool) -> str:
    """The number in plain digits, or with an exponent where these would be many."""
    shown = value if is_exact else Context(prec=SHOWN_DIGITS).plus(value)
    shown = shown.normalize()
    return f"{shown:f}" if -SHOWN_DIGITS <= shown.adjusted() < DIGITS else f"{shown:E}"

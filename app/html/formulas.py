"""Converts TeX formulas to MathML, which browsers typeset without scripts.

Knows TeX delimiters and MathML; knows nothing of Markdown and pages.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from xml.etree import ElementTree

from latex2mathml.converter import convert

# The allowed attributes of the converter's output: no links, styles or classes
ATTRIBUTES = frozenset(
    (
        "accent",
        "accentunder",
        "columnalign",
        "columnlines",
        "columnspacing",
        "depth",
        "display",
        "displaystyle",
        "fence",
        "form",
        "height",
        "largeop",
        "linethickness",
        "lspace",
        "mathcolor",
        "mathsize",
        "mathvariant",
        "maxsize",
        "minsize",
        "movablelimits",
        "notation",
        "rowlines",
        "rowspacing",
        "rspace",
        "scriptlevel",
        "separator",
        "stretchy",
        "voffset",
        "width",
    )
)
MATHML = "{http://www.w3.org/1998/Math/MathML}"
# Environments that the converter lacks; they are replaced by one that it has
ALIGNED = re.compile(r"(\\(?:begin|end)\{)(?:aligned|gathered|split)\}")
MAX_FORMULA_CHARS = 2_000  # per formula; the converter is slow on longer ones


@lru_cache(maxsize=512)
def formula_html(formula: str, *, block: bool) -> str:
    """Return a formula (with delimiters) as MathML, or as text if it cannot be converted.

    The formula itself is the element's `alttext`, for screen readers and for copying.
    """
    inside = formula[1:-1] if formula[:2].count("$") == 1 else formula[2:-2]
    try:
        if len(inside) > MAX_FORMULA_CHARS:
            raise ValueError
        tex = ALIGNED.sub(r"\1align*}", inside)
        xml = convert(tex, display="block" if block else "inline")
        math = ElementTree.fromstring(xml)  # noqa: S314 - it has no entities: the converter's
        for element in math.iter():
            if not element.tag.startswith(f"{MATHML}m"):
                raise ValueError
            element.tag = element.tag.removeprefix(MATHML)
            element.attrib = {k: v for k, v in element.attrib.items() if k in ATTRIBUTES}
    except Exception:  # noqa: BLE001 - the converter raises anything on invalid TeX
        return f'<code class="tex">{escape(formula, quote=False)}</code>'
    math.set("alttext", formula)
    return ElementTree.tostring(math, encoding="unicode")

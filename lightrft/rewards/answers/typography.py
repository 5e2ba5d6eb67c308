r"""One spelling for what looks alike: minus signs, spaces, quotes, emphasis, digits, fractions, roots.

The readers of numbers and of mathematics see a text as `plain` leaves it. Its length grows by a small factor at most,
and it takes time in proportion to the text.
"""

from __future__ import annotations

import re
import unicodedata

from lightrft.rewards.answers.commands import STYLES, WRAPPERS


def plain(text: str) -> str:
    """The text with one spelling of each sign, and without quotes, emphasis and what is struck out."""
    for pattern, change in MARKUP:
        text = pattern.sub(change, text)
    text = STRUCK_OUT.sub(" ", text.translate(CHARACTERS))
    text = SINGLE_QUOTED.sub(r"\1", EMPHASIZED.sub(r"\2", text))
    return re.sub(" {2,}", " ", text)


IN_BASE = r"(?: ?\\text ?\{)? ?\(?(?:in )?base ?\}? ?([0-9]{1,2})(?![0-9])\)?\}?"
COLOUR = r"(?:\[\w{1,10}\] ?)?\{[^{}]{1,30}\}"
DIGITS = r"\(?[0-9][0-9A-F.,]{0,60}\)?|[0-9A-F]{1,60}(?=\}_)"  # that need no wrapper; the latter have a base
RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b", "0123456789+-")
LOWERED = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789")
MARKUP = (  # one after the other
    # <b>5</b>, \displaystyle 5
    (re.compile(r"</?(?:b|i|u|em|strong|p|span|code|center|mark|br) ?/?>"), " "),
    (re.compile(rf"\\(?:{STYLES})(?![A-Za-z]) ?"), " "),
    # \textcolor{red}{5} and \color{red} 5
    (re.compile(rf"\\(?:text)?color ?{COLOUR} ?\{{"), r"\\mathbf{"),
    (re.compile(rf"\\color ?{COLOUR}"), " "),
    # \text{Answer: }5
    (re.compile(r"\\text ?\{ ?([A-Za-z][A-Za-z ]{0,40}(?::| is)) ?\}"), r"\1 "),
    (re.compile(r"\\thinspace(?![a-z]) ?"), r"\\,"),
    # 101 (base 2), \text{101}
    (re.compile(rf"(?<![0-9A-Za-z.,])([0-9A-F]{{1,60}}){IN_BASE}"), r"\1_{\2}"),
    (re.compile(rf"\\(?:{WRAPPERS}) ?\{{ ?({DIGITS}) ?\}}"), r"\1"),
    # raised and lowered digits; digits with a line or a dot above
    (re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+"), lambda m: "^{" + m[0].translate(RAISED) + "}"),
    (re.compile("[\u2080-\u2089]+"), lambda m: "_{" + m[0].translate(LOWERED) + "}"),
    (re.compile("(?:[0-9][\u0304\u0305])+"), lambda m: r"\overline{" + re.sub("[^0-9]", "", m[0]) + "}"),
    (re.compile("([0-9])\u0307"), lambda m: rf"\dot{{{m[1]}}}"),
    # the sign of a root, before a number, a letter or (...)
    (re.compile("\u221a ?(?:([0-9]+|[A-Za-z])|\\(([^()]{1,200})\\))"), lambda m: rf"\sqrt{{{m[1] or m[2]}}}"),
)

STRUCK_OUT = re.compile(r"~~(?=\S)[^~\n]{1,200}~~")
EMPHASIZED = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3})(?=[^\s*_])([^*_\n]{0,200}[^\s*_])\1(?![\w*])")
SINGLE_QUOTED = re.compile(r"(?<![\w'])'{1,2}(?=[^\s'])([^'\n]{0,200}[^\s'])'{1,2}(?![\w'])")

ALIKE = {  # what it becomes: characters
    "": "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff",
    " ": "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t"
    '"\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f`',  # spaces, and double quotes
    "-": "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d",
    "'": "\u2018\u2019\u201a\u201b\u2032\u02bc",
    r"\times ": "\u00d7\u2715",
    r"\cdot ": "\u00b7\u22c5",
    r"\div ": "\u00f7",
    "/": "\u2044\u2215",
    "...": "\u2026\u22ef",
    r"\infty ": "\u221e",
    r"\cup ": "\u222a",
    r"\cap ": "\u2229",
    r"\in ": "\u2208",
    r"\le ": "\u2264",
    r"\ge ": "\u2265",
    r"\ne ": "\u2260",
    r"\pm ": "\u00b1",
    r"\approx ": "\u2248",
    r"\pi ": "\u03c0",
    r"^{\circ}": "\u00b0\u00ba",
    r"\emptyset ": "\u2205",
    "=>": "\u21d2",
    "->": "\u2192",
}
FULL_WIDTH = set(range(0xFF01, 0xFF5F)) - {0xFF0D}  # letters, digits and signs, but the minus
FRACTIONS = (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F), 0x2189)  # one half, a quarter, ...


def _character_table() -> dict[int, str]:
    table = {ord(character): text for text, characters in ALIKE.items() for character in characters}
    table |= {code: unicodedata.normalize("NFKC", chr(code)) for code in FULL_WIDTH}
    return table | {code: " " + unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/") for code in FRACTIONS}


CHARACTERS = _character_table()

r"""One spelling for what looks alike: minus signs, spaces, quotes, emphasis, digits, fractions, roots.

The readers of numbers and of mathematics see a text as `plain` leaves it. Its length grows by a small factor at most,
and it takes time in proportion to the text.
"""

from __future__ import annotations

import re
import unicodedata

from lightrft.rewards.answers.commands import STYLES, WRAPPERS

NOTHING = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t"
MINUS = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
DOUBLE_QUOTES = '"\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f`'
SINGLE_QUOTES = "\u2018\u2019\u201a\u201b\u2032\u02bc"
SIGNS = {
    **{"\u00d7": r"\times ", "\u2715": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": r"\div "},
    **{"\u2044": "/", "\u2215": "/", "\u2026": "...", "\u22ef": "...", "\u221e": r"\infty ", "\u222a": r"\cup "},
    **{
        "\u2229": r"\cap ",
        "\u2208": r"\in ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u2260": r"\ne ",
        "\u00b1": r"\pm ",
    },
    **{"\u2248": r"\approx ", "\u03c0": r"\pi ", "\u00b0": r"^{\circ}", "\u00ba": r"^{\circ}", "\u2205": r"\emptyset "},
    **{"\u21d2": "=>", "\u2192": "->", "\u2212": "-"},
}
RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b", "0123456789+-")
LOWERED = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789")


def _table() -> dict[int, str]:
    table = {ord(sign): text for sign, text in SIGNS.items()}
    for signs, text in ((NOTHING, ""), (SPACES, " "), (MINUS, "-"), (DOUBLE_QUOTES, " "), (SINGLE_QUOTES, "'")):
        table |= dict.fromkeys(map(ord, signs), text)
    table |= {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFF5F) if code != 0xFF0D}
    for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F), 0x2189):  # one half, a quarter, ...
        table[code] = " " + unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/")
    return table


TABLE = _table()
IN_BASE = r"(?: ?\\text ?\{)? ?\(?(?:in )?base ?\}? ?([0-9]{1,2})(?![0-9])\)?\}?"
COLOUR = r"(?:\[\w{1,10}\] ?)?\{[^{}]{1,30}\}"
CHANGES = (
    (re.compile(r"</?(?:b|i|u|em|strong|p|span|code|center|mark|br) ?/?>"), " "),
    (re.compile(rf"\\(?:{STYLES})(?![A-Za-z]) ?"), " "),
    (re.compile(rf"\\(?:text)?color ?{COLOUR} ?\{{"), r"\\mathbf{"),
    (re.compile(rf"\\color ?{COLOUR}"), " "),
    (re.compile(r"\\text ?\{ ?([A-Za-z][A-Za-z ]{0,40}(?::| is)) ?\}"), r"\1 "),  # \text{Answer: }5
    (re.compile(r"\\thinspace(?![a-z]) ?"), r"\\,"),
    (re.compile(rf"(?<![0-9A-Za-z.,])([0-9A-F]{{1,60}}){IN_BASE}"), r"\1_{\2}"),  # 101 (base 2)
    (
        re.compile(rf"\\(?:{WRAPPERS}) ?\{{ ?(\(?[0-9][0-9A-F.,]{{0,60}}\)?|[0-9A-F]{{1,60}}(?=\}}_)) ?\}}"),
        r"\1",
    ),
    (re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+"), lambda m: "^{" + m.group().translate(RAISED) + "}"),
    (re.compile("[\u2080-\u2089]+"), lambda m: "_{" + m.group().translate(LOWERED) + "}"),
    (re.compile("(?:[0-9][\u0304\u0305])+"), lambda m: r"\overline{" + re.sub("[^0-9]", "", m.group()) + "}"),
    (re.compile("([0-9])\u0307"), lambda m: rf"\dot{{{m.group(1)}}}"),
    (
        re.compile("\u221a ?(?:([0-9]+|[A-Za-z])|\\(([^()]{1,200})\\))"),
        lambda m: rf"\sqrt{{{m.group(1) or m.group(2)}}}",
    ),
)
STRUCK = re.compile(r"~~(?=\S)[^~\n]{1,200}~~")
EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3})(?=[^\s*_])([^*_\n]{0,200}[^\s*_])\1(?![\w*])")
SINGLE_QUOTED = re.compile(r"(?<![\w'])'{1,2}(?=[^\s'])([^'\n]{0,200}[^\s'])'{1,2}(?![\w'])")

SPACES_TOGETHER = re.compile(" {2,}")


def plain(text: str) -> str:
    """The text with one spelling of each sign, and without quotes, emphasis and what is struck out."""
    for pattern, change in CHANGES:
        text = pattern.sub(change, text)
    text = STRUCK.sub(" ", text.translate(TABLE))
    return SPACES_TOGETHER.sub(" ", SINGLE_QUOTED.sub(r"\1", EMPHASIS.sub(r"\2", text)))

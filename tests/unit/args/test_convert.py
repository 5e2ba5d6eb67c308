"""Which texts are numbers, switches and texts, worked out by hand; alike on the command line and in YAML."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lightrft.args.convert import Kind, Wrong, from_node, from_words

INTEGERS = {"5": 5, "+5": 5, "-5": -5, "0": 0, "999999999999999999": 999999999999999999}
NUMBERS = {
    **{text: float(value) for text, value in INTEGERS.items()},
    **{"010": 10.0, "3.5": 3.5, "1e3": 1000.0, "1E5": 100000.0, "5.": 5.0, ".5": 0.5, "-.5": -0.5, "1e-6": 0.000001},
    **{"+1.5e+2": 150.0, "1e-400": 0.0, "1e308": 1e308, "99999999999999999999": 1e20},
}
NEITHER = [
    *("many", "nan", "NaN", "inf", "-inf", "Infinity", ".inf", ".nan", "1e999", "-1e999", "1_000", "１２", "٣", "½"),
    *("0x10", "0b1", "0o10", "1:30", "1,5", "1 0", ".", "+", "--5", "1e", "e5", "1.2.3", "1d5", "5%", "1/2"),
    *("true", "yes", "no", "on", "off", "None", "null", "2024-01-01"),
]
ONLY_TYPED = ("", " ", " 5", "5 ", "5\n")  # YAML takes the spaces away
TAGGED = ("'5'", '"5"', "!!str 5", "!env 5", "!!int '5'")
SWITCHES = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NO_SWITCHES = ("yes", "no", "on", "off", "y", "1", "0", "null", "~", "'true'", '"false"', "!env true", "!!str true")
TEXTS = {"a": "a", "'5'": "5", '"true"': "true", "!!str 5": "5", "'1e-6'": "1e-6", "1e-6": "1e-6", "''": ""}
NO_TEXTS = ("5", "010", "1.5", "true", "no", "null", "~", ".inf", "2024-01-01", "0x10", "[a]", "{a: b}", "!env a")


def typed(of: type, text: str) -> Any:
    return _read(lambda: from_words(Kind(of, "one", optional=False), [text]))


def filed(of: type, text: str) -> Any:
    return _read(lambda: from_node(Kind(of, "one", optional=False), yaml.compose(f"x: {text}").value[0][1]))


def _read(read) -> Any:
    try:
        return read()
    except Wrong:
        return Wrong


@pytest.mark.parametrize("text", [*NUMBERS, *NEITHER, *ONLY_TYPED])
def test_what_is_a_number(text: str):
    for of, meant in ((int, INTEGERS), (float, NUMBERS)):
        value = meant.get(text, Wrong)
        assert typed(of, text) == value and type(typed(of, text)) in (of, type)
        if text not in ONLY_TYPED:
            assert filed(of, text) == value


@pytest.mark.parametrize("text", TAGGED)
def test_quotes_and_tags_make_no_number(text: str):
    assert filed(int, text) is Wrong and filed(float, text) is Wrong


@pytest.mark.parametrize("text", [*SWITCHES, *NO_SWITCHES])
def test_what_is_a_switch(text: str):
    assert filed(bool, text) is SWITCHES.get(text, Wrong)


@pytest.mark.parametrize("text", [*TEXTS, *NO_TEXTS])
def test_what_is_a_text(text: str):
    assert filed(str, text) == TEXTS.get(text, Wrong)
    assert typed(str, text) == text


def test_null_leaves_only_an_optional_flag_unset():
    for text in ("null", "~", "Null", "NULL", ""):
        node = yaml.compose(f"x: {text}").value[0][1]
        assert from_node(Kind(float, "one", optional=True), node) is None
        assert filed(float, text) is Wrong and filed(str, text) is Wrong

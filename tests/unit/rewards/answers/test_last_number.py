"""Numbers are worked out by hand: what a person takes a text's last number for, None where it is no answer."""

from fractions import Fraction

import pytest

from lightrft.rewards.answers.last_number import last_number_in
from lightrft.rewards.answers.numbers import Number
from lightrft.rewards.rules import last_number

# fmt: off
NUMBERS = [
    ('so it is 1,234', '1234'), ('$1,234.50', '1234.5'), ('1,234,567 in all', '1234567'), ('2.50', '2.5'),
    ('about .5', '0.5'), ('is 5.', '5'), ('3 or 4? 4!', '4'), ('-3', '-3'), ('it is -3.', '-3'),
    ('minus: \u22123', '-3'), ('-$5', '-5'), ('$-5', '-5'), ('\\boxed{-7}', '-7'), ('3 - 5 = -2', '-2'),
    ('5\n-3', '-3'), ('first 5, -3', '-3'), ('option-3', '3'), ('2e3', '2000'), ('007', '7'), ('- 5', '-5'),
    ('\\boxed{- 5}', '-5'), ('= - 5', '-5'), ('The answer is - 5.', '-5'), ('Answer: - 5', '-5'), ('+5', '5'),
    ('+ 5', '5'), ('minus 5', '-5'), ('negative five 5', '5'), ('negative 5', '-5'), ('\u20135', '-5'),
    ('3/4', '0.75'), ('The answer is 3/4.', '0.75'), ('\\frac{3}{4}', '0.75'), ('-\\frac{3}{4}', '-0.75'),
    ('1 1/2', '1.5'), ('I had 1 1/2 of it', '1.5'), ('2^10', '1024'), ('5 km', '5'), ('5km', '5'),
    ('5 m/s', '5'), ('5m', '5'), ('5 million', '5000000'), ('50%', '50'), ('50\\%', '50'), ('5th', '5'),
    ('90\xb0', '90'), ('90^\\circ', '90'), ('90^{\\circ}', '90'), ('=> 5', '5'), ('-> 5', '5'),
    ('\u2192 5', '5'), ('> 5', '5'), ('x \\approx 5', '5'), ('x = 5', '5'), ('x=5', '5'),
    ('so 5, with x_2', '5'), ('5 for A4 paper', '5'), ('(5)', '5'), ('x is 3 or 5', '5'), ('101_2', (5, 2)),
    ('**18**', '18'), ('is **18**', '18'), ('*18*', '18'), ('`18`', '18'), ('is \u201c18\u201d', '18'),
    ("'18'", '18'), ("is '18'.", '18'), ('\xab18\xbb', '18'), ('2**3', '8'), ('* 5', '5'),
    ('1. five\n2. six\n5', '5'), ('US$18', '18'), ('\\$18', '18'), ('is \\$18.', '18'), ('\u20ac18', '18'),
    ('18\u20ac', '18'), ('18 \u20ac', '18'), ('Rs. 18', '18'), ('-\\$18', '-18'), ('\\text{18}', '18'),
    ('\\textbf{-18}', '-18'), ('\\text{Answer: }18', '18'), ('5 apples (3 red)', '3'), ('#### 18', '18'),
    ('Step 5: done', '5'), ('5 - done', '5'), ('18 dollars', '18'), ('1 000', '1000'),
    ('in 2023 150 people', '150'), ('10 000', '10000'), ("1'000", '1000'), ('1\u2019000\u2019000', '1000000'),
    ('1\\,000\\,000', '1000000'), ('1{,}000', '1000'), ('3 x 10^5', '300000'), ('3\xd710\u2075', '300000'),
    ('5...', '5'), ('5.\n', '5'), ('5,', '5'), ('5;', '5'), ('(5)', '5'), ('5)', '5'), ('[5]', '5'),
    ('5]', '5'), ('5!', '5'), ('USD 5', '5'), ('USD5', '5'), ('answer=5', '5'), ('answer:5', '5'),
    ('1e-3', '0.001'), ('$5$', '5'), ('$x = 5$', '5'), ('$x=-5$', '-5'), ('\\(5\\)', '5'), ('\\[5\\]', '5'),
    ('$$5$$', '5'), ('**Answer:** 5', '5'), ('**Answer: 5**', '5'), ('5\\,', '5'), ('5\\text{ cm}', '5'),
    ('5\\text{ cm}^2', '5'), ('5 cm^2', '5'), ('5 cm\xb2', '5'), ('5 m^2', '5'), ('x is 5, 3', '3'),
    ('1st', '1'), ('chapter 5.', '5'), ('\\text{Answer:} -18', '-18'), ('\\large 18', '18'), ('{\\huge 18}', '18'),
    ('\\color{red}18', '18'), ('\\color{red}{18}', '18'), ('-\\textcolor{red}{18}', '-18'), ('\\mathsf{18}', '18'),
    ('= \\equiv -5', '-5'), ('5 \\to', '5'), ('5 \\sim', '5'), ('{"answer": -18}', '-18'), ('from 4 to 5', '5'),
    ('The difference between 20 and 2 is 18', '18'), ('between us, it is 5', '5'), ('between 3 and 4, so 5', '5'),
    ('3 hours = 180 minutes', '180'), ('3 hours or 180 minutes', '180'), ('3 hours (180 minutes)', '180'),
    ('3 hours, so 18 minutes', '18'), ('3 months and 18 dollars', '18'), ('2 minutes 3 hours', '3'),
]
NO_ANSWER = [
    'either 12,34', '1,2345', '5-3', '5 - 3', '5 -3', '(5) -3', '5, -3', '2024-05-03', '1e9999', 'Answer - 5',
    'steps:\n- 5', 'x - 5', 'x -5', 'x + 5', '10 minus 5', 'pages 3\u20135', '5/3/2024', 'x^2', 'x^2 + 3',
    '\\sqrt{5}', '2\\sqrt{5}', '2\\pi', '2\u03c0', '2x', 'we get 2x', '$5k', '12:30', '5 pm', 'at 5pm',
    'July 4', 'July 4, 2024', '4 July 2024', '3:4', '1.2.3', 'x > 5', 'x \\ge 5', 'x \u2265 5', '\xb15',
    '\\pm 5', 'x_2', 'sha256', 'log_2 8', '\\log_2 8', 'f(5)', 'sqrt(5)', '(3, 4)', '[1,2]', '{1, 2}', '3, 5',
    '3 and 5', '-(5)', 'x + (5)', '3 mod 7', '3 \\pmod{7}', '2*3', '2 * 3', 
    'not 5', 'x != 5', 'x \u2260 5', "isn't 5", "can't be 5", '5(x+1)', '5\'11"', '5 - x', '5 + y', '0,5', '1.000,5',
    '1.000.000', 'no number', '', '2 x 3', '2x3', '5x^2', '5 x^2', '2x^3',
    'between 18 and 19', 'between \\$18 and \\$19', 'between -5 and -3',
    'not -5', '18 to 19', '\\sec 5', 'csc 5', '5 \\pitchfork', '3 hours 18 minutes', '3 hours and 18 minutes',
    '3 hours, 18 minutes', '3h 18min', '5 feet 11 inches', '3 m 18 cm', '4 kg 250 g',
    '3\\text{ hours }18\\text{ minutes}', '3 dollars and 18 cents', '5 pounds 3 ounces', '2 days 3 hours',
]
# fmt: on


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_the_last_number_of_a_text(text, value):
    number, base = value if isinstance(value, tuple) else (value, 10)
    assert last_number_in(text) == Number(Fraction(number), base)


@pytest.mark.parametrize("text", NO_ANSWER)
def test_what_is_no_number_or_only_a_part_of_something(text):
    assert last_number_in(text) is None
    assert last_number(text, "0") == 0.0


# fmt: off
SAME = [  # ways to write one number
    ("1/3", "0.\\overline{3}", "0.\\bar{3}", "0.(3)", "0.333...", "0.333\\ldots",
     "0.33\u2026", "0.3\u0305", "\\frac13", "\u2153"),
    ("1/6", "0.1\\overline{6}", "0.1(6)", "0.1666...", "0.1\\dot{6}", "\\tfrac{1}{6}", "1 / 6"),
    ("1/7", "0.\\overline{142857}", "0.(142857)", "0.142857142857...", "0.\\dot{1}4285\\dot{7}"),
    ("3/2", "1.5", "1 1/2", "1\\frac{1}{2}", "1\\,\\dfrac12", "1\u00bd", "1 \u00bd", "1.50"),
    ("1000", "1,000", "1{,}000", "1\\,000", "1\\;000", "1\\ 000", "1~000",
     "1'000", "1\u2019000", "1\u202f000", "1 000",
     "10^3", "1e3", "1 thousand", "1\\times 10^3"),
    ("-5", "\u22125", "\u20135", "- 5", "-$5", "$-5", "-\\$5", "minus 5",
     "negative 5", "\\boxed{-5}", "\\boxed{- 5}", "= - 5"),
    ("18", "\\$18", "$18", "US$18", "\u20ac18", "18 \u20ac", "`18`", "\"18\"", "\u201c18\u201d",
      "\u00ab18\u00bb", "'18'", "**18**", "__18__", "\\textbf{18}", "18.", "18%", "\uff11\uff18", "0018"),
    ("101_2", "101_{2}", "(101)_2", "101\u2082", "101_{\\text{two}}", "0b101",
     "101 (base 2)", "101 base 2", "101\\text{ base }2"),
    ("0.001", "1e-3", "10^{-3}", "1 \\times 10^{-3}", ".001", "10\u207b\u00b3"),
]
OTHERS = [  # no two of a row are the same number
    ("0.3", "0.33", "1/3", "0.34...", "3"),
    ("101_2", "101_3", "101", "5"),
    ("1 1/2", "1/2", "1", "2", "11/2"),
    ("1{,}000", "1", "0", "1.5"),
    ("- 5", "5"),
    ("2 \\times 10^3", "3", "10", "2", "2 \\times 10^{-3}", "2 \\times 10^4"),
    ("12345678901234567891", "12345678901234567890"),
    ("5 million", "5", "5 billion"),
]
# fmt: on


@pytest.mark.parametrize("texts", SAME)
def test_ways_to_write_one_number(texts):
    for text in texts:
        assert last_number(f"So it is {text}" if text[0] not in "-=" else text, texts[0]) == 1.0, text
        assert last_number(f"<answer>{text}</answer>", texts[0]) == 1.0, text
        assert last_number(texts[0], text) == 1.0, text


@pytest.mark.parametrize("texts", OTHERS)
def test_numbers_that_differ(texts):
    for text in texts:
        assert [last_number(text, other) for other in texts] == [float(text == other) for other in texts], text


def test_long_numbers_are_read_to_their_first_digit():
    for digits in (120, 160, 900):
        number = "12" * (digits // 2)
        assert last_number(f"So it is 7{number}", f"7{number}") == 1.0
        assert last_number(f"So it is 7{number}", number) == 0.0
    assert last_number_in(f"It is {'1' * 1200}") is None


def test_the_box_is_read_before_the_text():
    assert last_number(r"\boxed{5}, found in 3 steps", 5) == 1.0
    assert last_number(r"\boxed{5}, found in 3 steps", 3) == 0.0
    assert last_number(r"\boxed{5, found in 3 steps", 3) == 0.0
    assert last_number(r"\boxed{}, found in 3 steps", 3) == 0.0


def test_of_an_object_its_answer_is_read():
    assert last_number('{"answer": 18, "confidence": 90}', 18) == 1.0
    assert last_number('{"answer": 18, "confidence": 90}', 90) == 0.0
    assert last_number(r'\boxed{{"answer": 18, "confidence": 90}}', 18) == 1.0
    assert last_number('```json\n{"answer": 18, "confidence": 90}\n```', 18) == 1.0
    assert last_number('{"answer": ' + "[" * 1500 + "18", 18) == 1.0  # no object, and the text's last number

r"""Verdicts are worked out by hand. `box` writes an answer into a sentence with a box."""

import pytest

from lightrft.rewards.answers.math_answers import judge


def box(answer):
    return rf"I think \boxed{{{answer}}} is right."


SAME = [  # response, reference
    (box(r"\frac{1}{2}"), "0.5"),
    (box(r"\dfrac12"), "1/2"),
    (box("2/4"), r"\frac{1}{2}"),
    (box("0.333333"), "1/3"),
    (box(r"1\frac12"), "1.5"),
    (box("1 1/2"), "3/2"),
    (box("\N{MINUS SIGN}3"), "-3"),
    (box("1,234"), "1234"),
    (box("1234"), "1,234"),
    (box(r"10\,000"), "10000"),
    (box("10 000"), "10000"),
    (box("1{,}000{,}000"), "10^6"),
    (box("3e5"), "300000"),
    (box("0.000001"), "1e-06"),
    (box(r"50\%"), "0.5"),
    (box("50%"), r"50\%"),
    (box(r"\$5"), "5"),
    (box("x=3"), "3"),
    (box("3"), "x=3"),
    (box("1, 2, 3"), r"\{3, 2, 1\}"),
    (box(r"\pm 2"), r"\{2,-2\}"),
    (box(r"x=2 \text{ or } x=-2"), "2, -2"),
    (box("[1,2)"), r"\left[1,2\right)"),
    (box(r"(-\infty,3]\cup[5,\infty)"), r"[5,\infty)\cup(-\infty,3]"),
    (box("[3,5]"), r"3\le x\le5"),
    (box("3<x"), "x>3"),
    (box(r"5\text{ km}"), "5"),
    (box("5 km"), r"5\text{ km}"),
    (box("12 minutes"), "12"),
    (box("3 m/s"), r"3\text{ m/s}"),
    (box(r"90^\circ"), "90"),
    (box(r"\sqrt{8}"), r"2\sqrt2"),
    (box(r"\frac{\sqrt{3}}{3}"), r"\frac{1}{\sqrt{3}}"),
    (box("2pi"), r"2\pi"),
    (box("(x+1)^2"), "x^2+2x+1"),
    (box("x**2+2*x+1"), "(x+1)^2"),
    (box("2x-y+1=0"), "y=2x+1"),
    (box("3+4i"), "4i+3"),
    (box("5!"), "120"),
    (box(r"\log_2 8"), "3"),
    (box(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"), r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    (box("Paris"), r"\text{paris}"),
    (box(r"\text{(A)}"), "A"),
    (box("$7$"), r"\boxed{7}"),
    (box("72"), "60 + 12 is #### 72"),
    (box("72"), "The answer is $72$."),
    (r"At first \boxed{1}, no: \boxed{2}", "2"),
    (r"\boxed{\boxed{2}}", "2"),
    ("The answer is 7, not 5.", "7"),
    ("So $x^2=9$. The answer is 3.", "3"),
    ("As $3+4=7$, it is $7$.", "7"),
    ("it is \N{MINUS SIGN}3", "-3"),
    ("A: 7", "7"),
    ("**7**", "7"),
    ("it is 10 000", "10000"),
    (r"it is $10\,000$", "10000"),
    ("x^2 + 2x + 1", "(x+1)^2"),
    ("(3, 4)", "(3,4)"),
]
DIFFERENT = [
    (box("0.33"), "1/3"),
    (box("-3"), "3"),
    (box("5"), r"50\%"),
    (box("y=3"), "x=3"),
    (box("x=4"), "3"),
    (box("1, 2"), r"\{1, 2, 3\}"),
    (box("(2,1)"), "(1,2)"),
    (box("[1,2]"), "(1,2)"),
    (box("x<3"), "x>3"),
    (box("x^2+1"), "x^2+2x+1"),
    (box(r"-\infty"), r"\infty"),
    (box("1 1/2"), "1"),
    (box(r"\begin{pmatrix}1&2\\4&3\end{pmatrix}"), r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (box("Rome"), "Paris"),
    (box("live"), "evil"),
    (box("all real numbers"), "5"),
    (box(""), "5"),
    (r"At first \boxed{1}, no: \boxed{2}", "1"),
    (r"\boxed{1}, no: \boxed{2", "1"),
    (r"\boxed{1}, no: \boxed{2", "2"),
    (r"\boxed{1}. The answer is 2.", "2"),
    ("10 000", "0"),
    ("2x+3", "2"),
    ("7", "-7"),
    ("no idea", "7"),
    ("", "7"),
    ("__import__('os').abort()", "7"),
]


@pytest.mark.parametrize(("response", "reference"), SAME)
def test_the_same_answer(response, reference):
    assert judge(response, reference, boxed_only=False) == 1.0


@pytest.mark.parametrize(("response", "reference"), DIFFERENT)
def test_another_answer(response, reference):
    assert judge(response, reference, boxed_only=False) == 0.0


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        (box("9"), r"9\%"),  # a percentage is also the number before the sign
        (box("(2,3)"), "2, 3"),  # a pair, an open interval and two values
        ("it is $ab$", "$ba$"),  # two letters are a product
    ],
)
def test_what_the_docs_say_is_wrongly_taken_for_the_same(response, reference):
    assert judge(response, reference, boxed_only=False) == 1.0


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        (box("3 m"), r"3\text{ m}"),  # a unit of one letter that is not in \text is an unknown
        (box("18 m/s"), r"\frac{18m}{s}"),  # but this is a speed
        (r"\boxed{1} and \boxed{2}", "1, 2"),  # the last box counts
        ("it is x + 1", "x+1"),  # letters need a box or dollars
        (box("5"), "101_2"),  # the base is part of the answer
        (box("3.141593"), "3.14159265"),
    ],
)
def test_what_the_docs_say_is_wrongly_taken_for_another(response, reference):
    assert judge(response, reference, boxed_only=False) == 0.0


def test_only_the_box_counts_for_boxed():
    assert judge(box("7"), "7", boxed_only=True) == 1.0
    assert judge("The answer is $7$.", "7", boxed_only=True) == 0.0
    assert judge("7", "7", boxed_only=True) == 0.0


@pytest.mark.parametrize("reference", ["", " ", "who knows the answer", r"\frac{1}{", "$$"])
def test_a_reference_that_is_no_mathematics_is_named(reference):
    with pytest.raises(ValueError, match="^the reference .* cannot be read as mathematics") as caught:
        judge("7", reference, boxed_only=False)
    assert repr(reference) in str(caught.value)

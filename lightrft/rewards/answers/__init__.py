"""How an answer is read. Every verdict of a rule goes through these files, in this order:

references.py     what the reference of a row is, and why it may be of no use
extraction.py     which part of a response is its answer: after the thoughts, in its tags; in its last box
typography.py     one spelling for what looks alike
prose.py          what is left of an answer without what is around it; which part of a sentence it is
options.py        the letter of a multiple choice
moments.py        12:30 and 2024-02-29
numbers.py        every way to write a number, read exactly
units.py          the units that can differ, and how they are spelled
quantities.py     a number with its sign, currency and unit
last_number.py    which number of a text answers for it                      (rule `last_number` ends here)
latex.py          formulas, through the library
meaning.py        which of these a text is
comparison.py     whether two meanings are the same
math_answers.py   the verdict, of all of them together                      (rules `math` and `boxed`)

commands.py has the words of LaTeX that several patterns share. A pattern stands above the function that uses it.
"""

r"""Commands of LaTeX, and names of functions, by what they mean to a reader of answers: the insides of patterns."""

FUNCTIONS = "sin|cos|tan|cot|sec|csc|log|ln|exp"
# Between two things of which each stands for itself; and beside what has nothing to do with them.
RELATIONS = "approx|sim|equiv|implies|Rightarrow|rightarrow|Longrightarrow|to|therefore|because"
PLACEMENT = "q?quad|item|boxed|fbox|newline|par|hspace|begin|end"
STYLES = (  # they change how all that follows looks
    "(?:display|text|script|scriptscript)style|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge"
    "|bf|bfseries|boldmath|it|itshape|centering"
)
WRAPPERS = (  # they change how one group looks
    "text|textbf|textit|textrm|textsf|texttt|textnormal|mathbf|mathrm|mathit|mathsf|boldsymbol|bm|emph|underline|mbox"
)

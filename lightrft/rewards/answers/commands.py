r"""Commands of LaTeX, and names of functions, by what they mean to a reader of answers: alternatives for patterns."""

FUNCTIONS = "sin|cos|tan|cot|sec|csc|log|ln|exp"
# What stands between two things, each of which is complete by itself.
RELATIONS = "approx|sim|equiv|implies|Rightarrow|rightarrow|Longrightarrow|to|therefore|because"
# What has nothing to do with the numbers beside it.
PLACEMENT = "q?quad|item|boxed|fbox|newline|par|hspace|begin|end"
STYLES = (  # they change how all that follows looks
    "(?:display|text|script|scriptscript)style|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge"
    "|bf|bfseries|boldmath|it|itshape|centering"
)
WRAPPERS = (  # they change how one group looks
    "text|textbf|textit|textrm|textsf|texttt|textnormal|mathbf|mathrm|mathit|mathsf|boldsymbol|bm|emph|underline|mbox"
)

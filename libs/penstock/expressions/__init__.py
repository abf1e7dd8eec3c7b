"""CEL (the Common Expression Language) as users write it: filters, conditions, rules.

It has no side effects, but its macros are loops, and its parser can be made to overflow the stack. So expressions run
in a process of their own, which gives up after a second of computing, and on which nothing but that expression depends.
"""

from penstock.expressions.evaluator import MAX_CHARS, InvalidExpression, evaluate, variables_of

__all__ = ["MAX_CHARS", "InvalidExpression", "evaluate", "variables_of"]

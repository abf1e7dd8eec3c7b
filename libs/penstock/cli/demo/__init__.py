"""`penstock demo`: the whole loop once, from mislabelled digits to a better served model and the reason why."""

from penstock.cli.demo.command import demo

__all__ = ["demo"]

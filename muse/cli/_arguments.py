"""Kinds of arguments that several commands take; it knows none of the commands."""

from __future__ import annotations

import argparse

from muse import journal


def day(text: str) -> str:
    """A day `YYYYMMDD`, for `type=` of argparse, which makes of anything else wrong usage."""
    if not journal.is_day(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a date of the form YYYYMMDD, such as 20261103")
    return text

"""Null observers: what a benchmark must not be impressed by. One file each, with a function ``build``."""

"""The version of all commands and products: the one source, also read by pyproject.toml."""

__version__ = "0.1.0"

"""The one error that a caller's mistake raises."""

from __future__ import annotations


class ParameterError(ValueError):
    """A request parameter that cannot be honoured.

    Args:
        parameter: name of the parameter as the caller wrote it.
        value: what was got.
        wanted: what is accepted, and what to do about it.

    The message reads: parameter, what was got, what is wanted.
    """

    def __init__(self, parameter: str, value: object, wanted: str) -> None:
        self.parameter = parameter
        self.value = value
        super().__init__(f"{parameter}: got {value!r}; {wanted}")

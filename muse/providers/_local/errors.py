"""The errors of the embedded engine; the `local` provider translates them to provider errors.

EngineError
├── EngineMissing    the engine package is not installed, or does not fit this machine
├── WeightsMissing   no usable model file
├── EngineRefused    the engine refused the request or the model file
└── EngineDied       the engine's process ended before it answered
"""

from __future__ import annotations


class EngineError(Exception):
    """The base class of all failures of the embedded engine."""


class EngineMissing(EngineError):
    """The package that runs the model is not installed, or cannot be loaded."""


class WeightsMissing(EngineError):
    """No model file was found, or the named file is not a model file."""


class EngineRefused(EngineError):
    """The engine refused a request or a model file and gave a reason.

    `status` follows HTTP (400 for a bad request), `code` is llama.cpp's error type, for
    example `exceed_context_size_error`.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.code})"


class EngineDied(EngineError):
    """The engine's process ended while requests waited; the next request starts another."""

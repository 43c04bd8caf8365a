"""``nbformat`` and ``nbclient``, imported without the three seconds that one of their dependencies' extras takes."""

from __future__ import annotations

import sys
from typing import Any

# jsonschema, which checks notebooks, builds a grammar of all internationalised addresses when it finds this module. No
# notebook's schema asks for that format, so for the time of the import the module is said to be missing, as it may be.
_EXTRA = "rfc3987_syntax"
_hidden = _EXTRA not in sys.modules and "jsonschema" not in sys.modules
_modules: dict[str, Any] = sys.modules
if _hidden:
    _modules[_EXTRA] = None
try:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from nbformat import NotebookNode
finally:
    if _hidden:
        del _modules[_EXTRA]

__all__ = ["CellExecutionError", "CellTimeoutError", "DeadKernelError", "NotebookClient", "NotebookNode", "nbformat"]

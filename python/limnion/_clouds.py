"""Takes the native module of limnion-clouds where that is installed: the same, with object stores.

`limnion` imports this before anything that is native.
"""

import sys
from importlib.util import find_spec


def _prefer() -> None:
    if find_spec("limnion_clouds") is None:
        return
    from importlib.metadata import version  # noqa: PLC0415

    theirs, ours = version("limnion-clouds"), version("limnion")
    if theirs != ours:
        raise ImportError(
            f"limnion-clouds must be of the version of limnion, {ours}, and is {theirs}; "
            'install them together: pip install --upgrade "limnion[clouds]"'
        )
    from limnion_clouds import _native  # noqa: PLC0415

    sys.modules["limnion._native"] = _native


_prefer()

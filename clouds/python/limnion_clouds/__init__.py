"""The native module of limnion with object stores. `import limnion` finds it by itself."""

from limnion_clouds import _native

__all__ = ["_native"]

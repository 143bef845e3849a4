"""Control groups for cells: limits that hold for a cell as a whole, and a kill that reaches all of it.

Only beneath a group that the operator named. Version 1, version 2 and both at once; nothing is guessed: what was asked
for and cannot be had is refused with the controller's name.
"""

from sandbox.cgroups.group import PREFIX, Group, make, sweep
from sandbox.cgroups.parent import Parent, open_parent

__all__ = ["PREFIX", "Group", "Parent", "make", "open_parent", "sweep"]

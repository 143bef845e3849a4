"""Mounted in every cell and in no rule of Landlock: a cell in which this file opens is not armed."""

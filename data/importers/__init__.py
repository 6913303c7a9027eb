"""Labelled pictures in the formats of other programs: a set of rows each, whose pictures are read one at a time.

formats tells which format a set is in. What every format needs after that, refusing or dropping what cannot be learnt
from, is in screening.
"""

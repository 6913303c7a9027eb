"""One module a format of labelled pictures: a function that yields an Entry a line, the picture as it is stored.

What every format needs after that, refusing or dropping what cannot be learnt from, is in screening.
"""

"""What came of a simulation, as one page of HTML: the table, and pictures of it.

The page needs nothing but itself: no script, no font, no file from elsewhere.
"""

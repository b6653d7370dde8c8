"""Running a log again: from any source, at any pace, into any sink; step by step, forwards and
backwards; folded into a state, and searched for the first record that broke it.
"""

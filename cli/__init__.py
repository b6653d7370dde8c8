"""The program ``logstore``: parse, call, print. It holds no state of its own."""

"""Consumer groups: who reads which partition, and how far it has come.

``assignors`` and ``state`` decide, purely; ``coordinator`` and ``offsets`` keep what was decided in
the live environment (``logstore.live``), for all processes that have the store open.
"""

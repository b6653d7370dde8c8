"""What must be true of a replicated log, looked at after every event.

``lineage`` follows what each replica holds, ``timeline`` what befell the brokers. The rules stand
in ``commits``, ``leaders``, ``readers`` and ``losses``, each one idea; ``suite`` puts them
together, and ``ending`` compares what is left at the end with what producers were told.
"""

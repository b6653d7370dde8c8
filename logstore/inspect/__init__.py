"""Looking into logs, read only: what they hold, what they take up, and what their bytes say.

Everything here works on the directories of a store and on those of a Kafka broker alike, also while
somebody appends to them.
"""

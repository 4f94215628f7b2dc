"""Curation: a pool of raw video → one row of scores per clip → thresholds → the manifest that training reads.

Stages score and never drop; what is kept is decided by thresholds over the rows, again in seconds (paper, section 2.5).
"""

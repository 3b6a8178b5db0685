"""Simulated customers, many at once: what they want, what they see, and what they would complain about.

Reading order: wishes (who wants what), watching (one stream, event by event), visit (one conversation), crowd,
sightings (what all of them saw).
"""

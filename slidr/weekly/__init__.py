"""The page of a weekly review: what was decided, how well, what was corrected, by which versions, on what data."""
